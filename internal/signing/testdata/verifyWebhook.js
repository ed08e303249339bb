// Node.js verification
const crypto = require('crypto');

function verifyWebhook(payload, timestamp, signature, secret) {
    const message = `${timestamp}.${payload}`;
    const expected = crypto
        .createHmac('sha256', secret)
        .update(message)
        .digest('hex');
    
    const providedSig = signature.replace('sha256=', '');
    return crypto.timingSafeEqual(
        Buffer.from(expected),
        Buffer.from(providedSig)
    );
}

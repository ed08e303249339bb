import hmac
import hashlib

def verify_webhook(payload: str, timestamp: str, signature: str, secret: str) -> bool:
    """Verify Nexus webhook signature."""
    # Construct the signed message
    message = f"{timestamp}.{payload}"
    
    # Calculate expected signature
    expected = hmac.new(
        secret.encode(),
        message.encode(),
        hashlib.sha256
    ).hexdigest()
    
    # Remove 'sha256=' prefix if present
    if signature.startswith("sha256="):
        signature = signature[7:]
    
    # Use constant-time comparison
    return hmac.compare_digest(expected, signature)

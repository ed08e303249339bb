-- One day of deliveries as a busy installation has them, in the order of their ids.
-- $1: the day's first moment; $2: how many; $3: subscriptions; $4: namespaces.
-- A tenth of the subscriptions gets half of the deliveries; 97 in 100 succeed, and those that fail had six attempts.
INSERT INTO nexus_webhooks.deliveries (id, created_at, completed_at, round, status, subscription_id, namespace, event_id,
    event_type, request_url, reason, error, body, last_attempt, earlier_attempts)
SELECT
    (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(h, 1, 3) || '8' || substr(h, 4, 15))::uuid,
    at, at + interval '1 second', 1, status,
    'sub_' || lpad(to_hex(sub * 40503 + 1048576), 12, '0'),
    'team-' || sub % $4::int,
    'evt_' || substr(md5(event), 1, 26),
    'category' || event_hash % 8 || '.type' || event_hash % 3,
    'https://consumer-' || sub || '.example.com/webhooks/nexus',
    CASE status WHEN 'success' THEN '' ELSE 'http_status' END,
    CASE status WHEN 'success' THEN '' ELSE 'the endpoint answered 500 Internal Server Error' END,
    sha256(event::bytea),
    jsonb_build_object('number', CASE status WHEN 'failed' THEN 6 ELSE 1 END, 'started_at', at,
        'duration_microseconds', (a * 100000)::int, 'status_code', CASE status WHEN 'success' THEN 200 ELSE 500 END,
        'response_body', CASE status WHEN 'success' THEN '{"ok": true}' ELSE repeat('<p>Error</p>', 80) END,
        'remote_address', '192.0.2.' || sub % 250 || ':443', 'connection_reused', true,
        'request_headers', jsonb_build_object('Content-Type', 'application/json', 'User-Agent', 'Nexus-Webhook/1.0',
            'X-Nexus-Event', 'build.completed', 'X-Nexus-Delivery', h, 'X-Nexus-Timestamp', at,
            'X-Nexus-Signature-256', 'sha256=' || h || h)),
    CASE status WHEN 'failed' THEN (SELECT jsonb_agg(jsonb_build_object('number', n, 'status_code', 500, 'error', h,
        'response_body', repeat('<p>Error</p>', 80))) FROM generate_series(1, 5) n) END
FROM (
    SELECT $1::timestamptz + i * (interval '1 day' / $2::int) AS at, a,
        floor($3::int * CASE WHEN b < 0.5 THEN b / 5 ELSE 0.1 + (b - 0.5) * 1.8 END)::int AS sub, h,
        (CASE WHEN a < 0.97 THEN 'success' WHEN a < 0.995 THEN 'failed' ELSE 'canceled' END)::nexus_webhooks.delivery_status AS status,
        $1::timestamptz::text || i / 3 AS event, i / 3 % 24 AS event_hash
    FROM (
        SELECT i, random() AS a, random() AS b, md5(random()::text) AS h FROM generate_series(0, $2::int - 1) i OFFSET 0
    ) r
) d

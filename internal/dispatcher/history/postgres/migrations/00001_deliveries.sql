-- The delivery history. Everything lives in the schema nexus_webhooks, which exists before this runs.
--
-- deliveries is partitioned by its id, a UUID of version 7: an id begins with its time, so a range of ids is a range of
-- times, the id alone is unique, and one order serves the key, the partitions and the pages. One partition is one day,
-- UTC. Partitions are made and dropped by the dispatcher, not here.
--
-- Ids and names compare by their bytes (COLLATE "C"), which is what equality needs and the cheapest there is.

-- +goose Up
CREATE TYPE nexus_webhooks.delivery_status AS ENUM ('success', 'failed', 'canceled');

CREATE TABLE nexus_webhooks.deliveries (
    id               uuid        NOT NULL PRIMARY KEY,
    replay_of        uuid,
    created_at       timestamptz NOT NULL, -- the time of the id, for people and their queries
    completed_at     timestamptz NOT NULL,
    round            integer     NOT NULL, -- how often it has ended
    status           nexus_webhooks.delivery_status NOT NULL,
    subscription_id  text COLLATE "C" NOT NULL,
    namespace        text COLLATE "C" NOT NULL,
    event_id         text COLLATE "C" NOT NULL,
    event_type       text COLLATE "C" NOT NULL,
    request_url      text        NOT NULL,
    reason           text        NOT NULL,
    error            text        NOT NULL,
    body             bytea,                -- bodies.ref of the same day
    last_attempt     jsonb,
    earlier_attempts jsonb                 -- an array, in order; lists never read it
) PARTITION BY RANGE (id);

-- A page is read backwards from one place in one of these for each key and status that is asked for.
CREATE INDEX deliveries_status       ON nexus_webhooks.deliveries (status, id);
CREATE INDEX deliveries_subscription ON nexus_webhooks.deliveries (subscription_id, status, id);
CREATE INDEX deliveries_namespace    ON nexus_webhooks.deliveries (namespace, status, id);
CREATE INDEX deliveries_event        ON nexus_webhooks.deliveries (event_id, status, id);
CREATE INDEX deliveries_event_type   ON nexus_webhooks.deliveries (event_type, status, id);

-- What was sent, once for each day on which deliveries of it were made, so that it goes when they go.
CREATE TABLE nexus_webhooks.bodies (
    ref  bytea NOT NULL, -- SHA-256
    day  date  NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (ref, day)
) PARTITION BY RANGE (day);

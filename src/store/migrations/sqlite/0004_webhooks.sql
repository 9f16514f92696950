-- Webhooks: endpoints, what each is owed, and every attempt. Deliveries are written by the change that
-- causes them. Texts that are secret are sealed when `secrets.key` is set.

-- mode: `state` (the newest revision) or `events` (each change event, in order).
-- failures and failing_since: attempts that failed since the last one that did not.
-- leased_until: until then one worker has the endpoint; nobody else attempts anything.
-- behind_answers: confirmations in a row that named an applied revision older than the newest.
CREATE TABLE webhooks (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    environment_id     BIGINT  NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    url                TEXT    NOT NULL,
    description        TEXT    NOT NULL,
    mode               TEXT    NOT NULL,
    format             TEXT    NOT NULL,
    events             TEXT    NOT NULL,
    headers            TEXT    NOT NULL,
    secret             TEXT    NOT NULL,
    previous_secret    TEXT,
    previous_until     BIGINT  NOT NULL DEFAULT 0,
    paused             BIGINT  NOT NULL DEFAULT 0,
    stopped_at         BIGINT,
    failures           BIGINT  NOT NULL DEFAULT 0,
    failing_since      BIGINT,
    last_attempt_at    BIGINT,
    last_outcome       TEXT,
    last_error         TEXT    NOT NULL DEFAULT '',
    not_before         BIGINT  NOT NULL DEFAULT 0,
    behind_answers     BIGINT  NOT NULL DEFAULT 0,
    delivered_revision BIGINT,
    applied_revision   BIGINT,
    dropped            BIGINT  NOT NULL DEFAULT 0,
    lease              TEXT    NOT NULL DEFAULT '',
    leased_until       BIGINT  NOT NULL DEFAULT 0,
    created_at         BIGINT  NOT NULL
);
CREATE INDEX webhooks_environment ON webhooks (environment_id);

-- kind: `state`, `event` or `test`. once: outside the queue, one attempt (tests, redeliveries).
-- state: `pending`, `delivered`, `failed` or `dropped`. due_at: of what may be attempted next; of a
-- queue that is only its head.
CREATE TABLE deliveries (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook_id       BIGINT  NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    message_id       TEXT    NOT NULL UNIQUE,
    kind             TEXT    NOT NULL,
    once             BIGINT  NOT NULL DEFAULT 0,
    state            TEXT    NOT NULL,
    revision         BIGINT  NOT NULL,
    updated_at       BIGINT  NOT NULL,
    changed          TEXT    NOT NULL,
    event_id         BIGINT,
    at               BIGINT  NOT NULL,
    attempts         BIGINT  NOT NULL DEFAULT 0,
    first_attempt_at BIGINT,
    due_at           BIGINT,
    created_at       BIGINT  NOT NULL,
    finished_at      BIGINT
);
CREATE INDEX deliveries_queue ON deliveries (webhook_id, state, once, id);
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_finished ON deliveries (finished_at) WHERE finished_at IS NOT NULL;
CREATE UNIQUE INDEX deliveries_one_state ON deliveries (webhook_id)
    WHERE kind = 'state' AND state = 'pending' AND once = 0;

CREATE TABLE attempts (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery_id      BIGINT  NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    message_id       TEXT    NOT NULL,
    revision         BIGINT  NOT NULL,
    at               BIGINT  NOT NULL,
    micros           BIGINT  NOT NULL,
    outcome          TEXT    NOT NULL,
    status           BIGINT,
    error            TEXT    NOT NULL,
    answer           TEXT    NOT NULL,
    applied_revision BIGINT
);
CREATE INDEX attempts_delivery ON attempts (delivery_id, id);
CREATE INDEX attempts_at ON attempts (at);

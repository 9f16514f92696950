-- Batches of evaluation counts that relays have handed on: one whose answer was lost comes again, and counts
-- once. Ids are kept for some days.
CREATE TABLE usage_batches (
    environment_id BIGINT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    id             TEXT   NOT NULL,
    created_at     BIGINT NOT NULL,
    PRIMARY KEY (environment_id, id)
);
CREATE INDEX usage_batches_age ON usage_batches (created_at);

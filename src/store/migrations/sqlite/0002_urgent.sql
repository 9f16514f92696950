-- A change that must not wait for the pace of the others: a kill switch.
ALTER TABLE change_events ADD COLUMN urgent BIGINT NOT NULL DEFAULT 0;

ALTER TABLE reservations
    DROP CONSTRAINT reservations_idempotency_key,
    ADD CONSTRAINT reservations_idempotency_key UNIQUE (drop_id, user_id, idempotency_key);

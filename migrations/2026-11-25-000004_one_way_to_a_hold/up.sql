-- A hold is looked up by its drop and id. To a planner that takes a new drop for small, as it does with every drop that
-- was not there when the table was last analysed, any index that begins with the drop is as good for that as the primary
-- key, and this one made it read all of the drop's holds for each of a batch.
ALTER TABLE reservations
    DROP CONSTRAINT reservations_idempotency_key,
    ADD CONSTRAINT reservations_idempotency_key UNIQUE (user_id, drop_id, idempotency_key);

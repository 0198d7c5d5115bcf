-- The drops that were made with a key of an administrator's: a request that is sent again makes no second one. It refers to no
-- table on purpose: an insert that takes seconds would lock its maker's row, for which `admin revoke` would wait. And `drops`
-- has no unique index without the drop's id, so it can be sharded as it is.
CREATE TABLE drop_keys (
    created_by      uuid NOT NULL,
    idempotency_key text NOT NULL CHECK (idempotency_key <> ''),
    drop_id         uuid NOT NULL,
    PRIMARY KEY (created_by, idempotency_key)
);

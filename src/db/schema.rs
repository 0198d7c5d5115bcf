// @generated automatically by Diesel CLI.

diesel::table! {
    use diesel::sql_types::*;

    drop_keys (created_by, idempotency_key) {
        created_by -> Uuid,
        idempotency_key -> Text,
        drop_id -> Uuid,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    drop_sizes (drop_id, size) {
        drop_id -> Uuid,
        size -> Text,
        position -> Int4,
        total -> Int4,
        available -> Int4,
        held -> Int4,
        sold -> Int4,
        next_pair -> Int4,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    drops (id) {
        id -> Uuid,
        name -> Text,
        description -> Nullable<Text>,
        image_url -> Nullable<Text>,
        price_amount -> Int4,
        price_currency -> Text,
        starts_at -> Timestamptz,
        ends_at -> Nullable<Timestamptz>,
        hold_seconds -> Int4,
        purchase_limit -> Int4,
        cancelled_at -> Nullable<Timestamptz>,
        stock_version -> Int4,
        created_at -> Timestamptz,
        admission_required -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    pairs (drop_id, size, pair_number) {
        drop_id -> Uuid,
        size -> Text,
        pair_number -> Int4,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    purchases (drop_id, reservation_id) {
        drop_id -> Uuid,
        reservation_id -> Uuid,
        size -> Text,
        pair_number -> Int4,
        user_id -> Uuid,
        price_amount -> Int4,
        price_currency -> Text,
        purchased_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    reservations (drop_id, id) {
        drop_id -> Uuid,
        id -> Uuid,
        size -> Text,
        pair_number -> Int4,
        user_id -> Uuid,
        status -> Text,
        price_amount -> Int4,
        price_currency -> Text,
        idempotency_key -> Text,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
        closed_at -> Nullable<Timestamptz>,
        admission_id -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    sessions (id) {
        id -> Uuid,
        user_id -> Uuid,
        token_hash -> Bytea,
        previous_hash -> Nullable<Bytea>,
        rotated_at -> Timestamptz,
        expires_at -> Timestamptz,
        created_at -> Timestamptz,
        ended_at -> Nullable<Timestamptz>,
        end_reason -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    stock_events (drop_id, version) {
        drop_id -> Uuid,
        version -> Int4,
        kind -> Text,
        at -> Timestamptz,
        sizes -> Array<Nullable<Text>>,
        restocked -> Array<Nullable<Int4>>,
        reserved -> Array<Nullable<Int4>>,
        purchased -> Array<Nullable<Int4>>,
        released -> Array<Nullable<Int4>>,
        expired -> Array<Nullable<Int4>>,
        total -> Array<Nullable<Int4>>,
        available -> Array<Nullable<Int4>>,
        held -> Array<Nullable<Int4>>,
        sold -> Array<Nullable<Int4>>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    users (id) {
        id -> Uuid,
        username -> Text,
        username_key -> Text,
        email -> Text,
        password_hash -> Text,
        role -> Text,
        created_at -> Timestamptz,
    }
}

diesel::joinable!(drop_sizes -> drops (drop_id));
diesel::joinable!(sessions -> users (user_id));
diesel::joinable!(stock_events -> drops (drop_id));

diesel::allow_tables_to_appear_in_same_query!(
    drop_keys,
    drop_sizes,
    drops,
    pairs,
    purchases,
    reservations,
    sessions,
    stock_events,
    users,
);

DROP TABLE drop_keys;

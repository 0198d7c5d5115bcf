DROP TABLE drop_sizes;
DROP TABLE drops;

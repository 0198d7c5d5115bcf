DROP TABLE stock_events;
DROP TABLE purchases;
DROP TABLE reservations;
DROP TABLE pairs;

-- Bounds that logins need of their own; CloudNativePG gives them their passwords.
CREATE ROLE vv_controller;
CREATE ROLE vv_agent;
ALTER ROLE vv_controller SET statement_timeout = '30s';
ALTER ROLE vv_controller SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE vv_agent SET statement_timeout = '30s';
ALTER ROLE vv_agent SET idle_in_transaction_session_timeout = '10s';

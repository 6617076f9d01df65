SET LOCAL lock_timeout = '5s';
DROP SCHEMA agent_v1 CASCADE;

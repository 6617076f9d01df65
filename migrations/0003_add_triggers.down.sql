SET LOCAL lock_timeout = '5s';
DROP FUNCTION touch_updated_at(), rank_volume() CASCADE;

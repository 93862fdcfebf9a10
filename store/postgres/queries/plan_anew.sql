-- Have the rest of the transaction planned for its values: which table and which partitions may be left out is in them.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true)

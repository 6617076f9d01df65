//! Whether the schema is the one this version makes: every table, column, constraint, index, trigger, function and right, as one line each.

use std::collections::BTreeSet;

use sqlx::PgConnection;

use super::Error;

/// What a migrated database looks like; written by `make schema`.
const EXPECTED: &str = include_str!("schema.txt");

/// How a schema differs from the expected one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Expected, and not there.
    pub missing: Vec<String>,
    /// There, and not expected.
    pub unexpected: Vec<String>,
}

/// Compares the schema with the one this version makes.
pub async fn verify(conn: &mut PgConnection) -> Result<Verified, Error> {
    let expected: BTreeSet<&str> = EXPECTED.lines().collect();
    let found = describe(conn).await?;
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    let only =
        |these: &BTreeSet<&str>, those: &BTreeSet<&str>| these.difference(those).map(|&line| line.to_owned()).collect();
    Ok(Verified { missing: only(&expected, &found), unexpected: only(&found, &expected) })
}

/// The schema, a line an object, sorted. Partitions are left out: they come and go. Functions are told by a hash of their source.
pub async fn describe(conn: &mut PgConnection) -> Result<Vec<String>, Error> {
    sqlx::query_scalar(DESCRIBE).fetch_all(conn).await.map_err(Error::Describe)
}

const DESCRIBE: &str = r#"
WITH relation AS (
    SELECT oid, relname, relkind, relacl FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S') AND NOT relispartition
), routine AS (
    SELECT oid, format('%s.%s(%s)', pronamespace::regnamespace, proname, pg_get_function_identity_arguments(oid)) AS name, prosecdef, prosrc,
        proconfig, proacl
    FROM pg_proc WHERE pronamespace::regnamespace::text IN ('public', 'agent_v1', 'maintain')
), granted AS (
    SELECT format('%s on %s', privilege.privilege_type, relation.relname) AS what, privilege.grantee
    FROM relation CROSS JOIN LATERAL aclexplode(relation.relacl) AS privilege
    UNION ALL SELECT format('%s on %s.%s', privilege.privilege_type, relation.relname, attname), privilege.grantee
    FROM relation JOIN pg_attribute ON attrelid = relation.oid CROSS JOIN LATERAL aclexplode(attacl) AS privilege
    UNION ALL SELECT format('EXECUTE on %s', routine.name), privilege.grantee
    FROM routine CROSS JOIN LATERAL aclexplode(coalesce(routine.proacl, acldefault('f', 10))) AS privilege
    UNION ALL SELECT format('%s on schema %s', privilege.privilege_type, nspname), privilege.grantee
    FROM pg_namespace CROSS JOIN LATERAL aclexplode(nspacl) AS privilege WHERE nspname IN ('agent_v1', 'maintain')
)
SELECT line COLLATE "C" FROM (
    SELECT format('%s %s', CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' ELSE 'sequence' END, relname)
    FROM relation
    UNION ALL SELECT concat_ws(' ', format('column %s.%s', relname, attname), format_type(atttypid, atttypmod),
        CASE WHEN attnotnull THEN 'not null' END,
        CASE WHEN attidentity <> '' THEN 'generated as identity' WHEN attgenerated <> '' THEN 'generated as ' || pg_get_expr(adbin, adrelid)
            ELSE 'default ' || pg_get_expr(adbin, adrelid) END)
    FROM relation JOIN pg_attribute ON attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relkind <> 'S'
    UNION ALL SELECT format('constraint %s.%s %s', relname, conname, pg_get_constraintdef(pg_constraint.oid))
    FROM relation JOIN pg_constraint ON conrelid = relation.oid AND contype IN ('p', 'u', 'f', 'c')
    UNION ALL SELECT format('index %s', pg_get_indexdef(indexrelid)) FROM relation JOIN pg_index ON indrelid = relation.oid
    UNION ALL SELECT format('trigger %s', pg_get_triggerdef(pg_trigger.oid)) FROM relation JOIN pg_trigger ON tgrelid = relation.oid AND NOT tgisinternal
    UNION ALL SELECT concat_ws(' ', 'function', name, CASE WHEN prosecdef THEN 'security definer' END, array_to_string(proconfig, ' '), md5(prosrc))
    FROM routine
    UNION ALL SELECT format('grant %s to %s', what, coalesce(nullif(rolname, ''), 'PUBLIC'))
    FROM granted LEFT JOIN pg_roles ON pg_roles.oid = grantee WHERE rolname IS NULL OR rolname <> 'volumeviz_owner' AND NOT rolsuper
) AS described (line)
ORDER BY 1"#;

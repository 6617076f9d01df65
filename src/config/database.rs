//! `DB_HOST`, `DB_PORT`, `DB_USER`, `DB_PASSWORD`, `DB_PASSWORD_FILE`, `DB_NAME`, `DB_SSLMODE`, `DB_SSLROOTCERT`, `DB_SSLCERT`, `DB_SSLKEY`,
//! `DB_POOLER`, `DB_MAX_OPEN_CONNS`, `DB_MAX_IDLE_CONNS`, `DB_CONN_MAX_LIFETIME`, `DB_CONN_MAX_IDLE_TIME`, `DB_ENABLE_METRICS`,
//! `DB_LOG_QUERIES`, `DB_SLOW_QUERY_THRESHOLD`.
//!
//! The password is never part of a `Debug` or `Display`. sqlx's own options print it: they must not be printed.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// Who a process is towards the database; decides how many connections it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Migrations, partitions, retention.
    Owner,
    /// Plans and reads.
    Controller,
    /// Six functions. At most two connections and none at rest, whatever `DB_*` says: there is an agent on every node.
    Agent,
}

/// How to reach the database.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// Host name or address of PostgreSQL
    #[arg(long = "db-host", env = "DB_HOST", default_value = "localhost", value_name = "HOST")]
    pub host: String,
    /// Port of PostgreSQL
    #[arg(long = "db-port", env = "DB_PORT", default_value_t = 5432, value_name = "PORT")]
    pub port: u16,
    /// User to connect as
    #[arg(long = "db-user", env = "DB_USER", default_value = "volumeviz", value_name = "NAME")]
    pub user: String,
    /// Password; better given as a file
    #[arg(
        env = "DB_PASSWORD",
        long = "db-password",
        hide_env_values = true,
        value_name = "PASSWORD",
        conflicts_with = "password_file"
    )]
    pub password: Option<Secret>,
    /// File with the password; read again when the database refuses the one in use
    #[arg(long = "db-password-file", env = "DB_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Name of the database
    #[arg(long = "db-name", env = "DB_NAME", default_value = "volumeviz", value_name = "NAME")]
    pub name: String,
    /// How the connection is encrypted and the server verified [default: require; verify-full with a root certificate]
    #[arg(long = "db-sslmode", env = "DB_SSLMODE", value_name = "MODE")]
    pub sslmode: Option<SslMode>,
    /// File with the certificates of the authorities that the server's certificate may come from
    #[arg(long = "db-sslrootcert", env = "DB_SSLROOTCERT", value_name = "FILE")]
    pub sslrootcert: Option<PathBuf>,
    /// File with the certificate to log in with, for servers that ask for one
    #[arg(long = "db-sslcert", env = "DB_SSLCERT", value_name = "FILE", requires = "sslkey")]
    pub sslcert: Option<PathBuf>,
    /// File with the key of that certificate
    #[arg(long = "db-sslkey", env = "DB_SSLKEY", value_name = "FILE", requires = "sslcert")]
    pub sslkey: Option<PathBuf>,
    /// What stands between here and PostgreSQL; maintain and migrate must not go through a pooler
    #[arg(long = "db-pooler", env = "DB_POOLER", default_value = "none", value_name = "KIND")]
    pub pooler: Pooler,
    /// Most connections open at a time (agents: 2)
    #[arg(long = "db-max-open-conns", env = "DB_MAX_OPEN_CONNS", default_value_t = 25, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_open_conns: u32,
    /// Most connections kept open while nothing needs them (agents: 0)
    #[arg(long = "db-max-idle-conns", env = "DB_MAX_IDLE_CONNS", default_value_t = 5, value_name = "N")]
    pub max_idle_conns: u32,
    /// How long a connection is used before it is made anew
    #[arg(long = "db-conn-max-lifetime", env = "DB_CONN_MAX_LIFETIME", default_value = "5m", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub conn_max_lifetime: Duration,
    /// How long a connection may be idle before it is closed
    #[arg(long = "db-conn-max-idle-time", env = "DB_CONN_MAX_IDLE_TIME", default_value = "90s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub conn_max_idle_time: Duration,
    /// Whether /metrics tells about the connections
    #[arg(long = "db-enable-metrics", env = "DB_ENABLE_METRICS", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub enable_metrics: bool,
    /// Whether every statement is logged, at level info and without its values
    #[arg(long = "db-log-queries", env = "DB_LOG_QUERIES", default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub log_queries: bool,
    /// Statements that take longer are logged as warnings
    #[arg(long = "db-slow-query-threshold", env = "DB_SLOW_QUERY_THRESHOLD", default_value = "100ms", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub slow_query_threshold: Duration,
}

/// What stands between a process and PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pooler {
    /// Nothing, or a pooler in session mode.
    None,
    /// PgBouncer in transaction mode, or one like it: two transactions of a connection may run on two servers.
    Transaction,
}

/// A password: cannot be printed.
#[derive(Clone)]
pub struct Secret(String);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// libpq's `sslmode`, without the modes that fall back to no encryption in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SslMode {
    /// No encryption.
    Disable,
    /// Encrypted; the server is not verified.
    Require,
    /// Encrypted; the server's certificate must come from a known authority.
    VerifyCa,
    /// Encrypted; the certificate must also name the host.
    VerifyFull,
}

impl From<SslMode> for PgSslMode {
    fn from(mode: SslMode) -> Self {
        match mode {
            SslMode::Disable => Self::Disable,
            SslMode::Require => Self::Require,
            SslMode::VerifyCa => Self::VerifyCa,
            SslMode::VerifyFull => Self::VerifyFull,
        }
    }
}

/// The password file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the password file {path}: {source}")]
pub struct PasswordFile {
    /// As configured.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

impl DatabaseArgs {
    /// The options for new connections, with the password as it is now.
    pub fn connect_options(&self) -> Result<PgConnectOptions, PasswordFile> {
        let default_mode = if self.sslrootcert.is_some() { SslMode::VerifyFull } else { SslMode::Require };
        // `new_without_pgpass`: what is not said here must not come from elsewhere.
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .database(&self.name)
            .application_name("volumeviz")
            .ssl_mode(self.sslmode.unwrap_or(default_mode).into())
            .log_statements(if self.log_queries { log::LevelFilter::Info } else { log::LevelFilter::Off })
            .log_slow_statements(log::LevelFilter::Warn, self.slow_query_threshold);
        if let Some(password) = self.password()? {
            options = options.password(&password);
        }
        if let Some(file) = &self.sslrootcert {
            options = options.ssl_root_cert(file);
        }
        if let (Some(certificate), Some(key)) = (&self.sslcert, &self.sslkey) {
            options = options.ssl_client_cert(certificate).ssl_client_key(key);
        }
        if self.pooler == Pooler::Transaction {
            // PgBouncer refuses start-up parameters that it does not track.
            options = options.extra_float_digits(None);
        }
        Ok(options)
    }

    fn password(&self) -> Result<Option<String>, PasswordFile> {
        let Some(path) = &self.password_file else { return Ok(self.password.clone().map(|Secret(password)| password)) };
        let text = std::fs::read_to_string(path).map_err(|source| PasswordFile { path: path.clone(), source })?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        database: DatabaseArgs,
    }

    fn parse(args: &[&str]) -> DatabaseArgs {
        Cli::try_parse_from(std::iter::once(&"volumeviz").chain(args)).unwrap().database
    }

    #[test]
    fn the_password_is_not_printed() {
        let args = parse(&["--db-password", "canary-4711"]);
        assert!(!format!("{args:?}").contains("canary-4711"));
    }

    #[test]
    fn a_root_certificate_means_full_verification() {
        let mode = |args: &[&str]| format!("{:?}", parse(args).connect_options().unwrap().get_ssl_mode());
        assert_eq!(mode(&[]), "Require");
        assert_eq!(mode(&["--db-sslrootcert", "/ca.crt"]), "VerifyFull");
        assert_eq!(mode(&["--db-sslrootcert", "/ca.crt", "--db-sslmode", "require"]), "Require");
    }

    #[test]
    fn a_password_file_that_is_missing_is_named() {
        let error = parse(&["--db-password-file", "/does/not/exist"]).connect_options().unwrap_err();
        assert!(error.to_string().contains("/does/not/exist"));
    }

    #[test]
    fn durations_are_written_as_people_do() {
        let args = parse(&["--db-conn-max-lifetime", "5m", "--db-slow-query-threshold", "250ms"]);
        assert_eq!(
            (args.conn_max_lifetime, args.slow_query_threshold),
            (Duration::from_secs(300), Duration::from_millis(250))
        );
    }
}

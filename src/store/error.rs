//! What can go wrong with the database, told apart by what a reader would do about it.

use crate::config::database::PasswordFile;
use std::time::Duration;

/// An operation on the database failed.
#[derive(Debug, thiserror::Error)]
#[error("unable to {operation}: {kind}")]
pub struct Error {
    /// What was tried, e.g. `read the runs of a scan`.
    pub operation: &'static str,
    /// Why it failed.
    pub kind: Kind,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Kind {
    /// No connection, or it broke.
    #[error("the database cannot be reached: {0}")]
    Unreachable(#[source] sqlx::Error),
    /// TLS could not be agreed on, or the server is not who it should be.
    #[error("no secure connection to the database: {0}")]
    TlsFailed(#[source] sqlx::Error),
    /// The user or password is wrong, or the password file cannot be read.
    #[error("the database refuses the login: {0}")]
    AuthFailed(#[source] sqlx::Error),
    /// The password file cannot be read.
    #[error(transparent)]
    PasswordFile(#[from] PasswordFile),
    /// The server has no connection left.
    #[error("the database has no connection left: {0}")]
    TooManyConnections(#[source] sqlx::Error),
    /// The server takes no writes: a standby, or a primary that was demoted.
    #[error("the database is read-only: {0}")]
    ReadOnly(#[source] sqlx::Error),
    /// The server's disk is full.
    #[error("the database's disk is full: {0}")]
    DiskFull(#[source] sqlx::Error),
    /// Tables, columns or functions are not those this version uses.
    #[error("the database's schema does not fit this version: {0}")]
    SchemaMismatch(#[source] sqlx::Error),
    /// The role lacks rights.
    #[error("the database role lacks rights: {0}")]
    GrantsMissing(#[source] sqlx::Error),
    /// No connection in time: the server does not answer, or the pool is in full use.
    #[error("no connection to the database within {0:?}")]
    ConnectTimeout(Duration),
    /// Connected, and no answer in time.
    #[error("no answer from the database within {0:?}")]
    Timeout(Duration),
    /// The server gave the statement up (`statement_timeout`, `lock_timeout`).
    #[error("the database gave up: {0}")]
    GivenUp(#[source] sqlx::Error),
    /// The server could not finish this time: deadlock, serialisation, no memory. The connection is as good as before.
    #[error("the database could not finish it this time: {0}")]
    Interrupted(#[source] sqlx::Error),
    /// There is no such row.
    #[error("there is none")]
    NotFound,
    /// Another row stands in the way (SQLSTATE 23503, 23505).
    #[error("another row stands in the way: {0}")]
    Conflict(#[source] sqlx::Error),
    /// The server refuses the data of this one call (SQLSTATE classes 21, 22 and 54, broken constraints).
    #[error("the database refuses the data: {0}")]
    InvalidData(#[source] sqlx::Error),
    /// Anything else.
    #[error("{0}")]
    Failed(#[source] sqlx::Error),
}

impl Error {
    /// Wraps what sqlx says.
    pub(super) fn new(operation: &'static str, error: sqlx::Error) -> Self {
        Self { operation, kind: Kind::of(error) }
    }

    /// The reason in conditions and metrics.
    pub const fn reason(&self) -> &'static str {
        match &self.kind {
            Kind::Unreachable(_) | Kind::ConnectTimeout(_) => "Unreachable",
            Kind::Timeout(_) | Kind::GivenUp(_) => "Timeout",
            Kind::TlsFailed(_) => "TlsFailed",
            Kind::AuthFailed(_) | Kind::PasswordFile(_) => "AuthFailed",
            Kind::TooManyConnections(_) => "TooManyConnections",
            Kind::ReadOnly(_) => "ReadOnly",
            Kind::DiskFull(_) => "DiskFull",
            Kind::SchemaMismatch(_) => "SchemaMismatch",
            Kind::GrantsMissing(_) => "GrantsMissing",
            Kind::Interrupted(_) => "Interrupted",
            Kind::NotFound => "NotFound",
            Kind::Conflict(_) => "Conflict",
            Kind::InvalidData(_) => "InvalidData",
            Kind::Failed(_) => "Failed",
        }
    }

    /// Whether a later try of the same call may succeed without anybody changing the call.
    pub const fn is_transient(&self) -> bool {
        !matches!(self.kind, Kind::InvalidData(_) | Kind::Conflict(_) | Kind::NotFound | Kind::Failed(_))
    }

    /// Whether the data of the call is at fault.
    pub const fn is_invalid_data(&self) -> bool {
        matches!(self.kind, Kind::InvalidData(_))
    }

    /// Whether the schema does not fit.
    pub const fn is_schema_mismatch(&self) -> bool {
        matches!(self.kind, Kind::SchemaMismatch(_))
    }

    /// Whether the connection it happened on must not be used again: it is broken, or leads to a server that is no longer the primary.
    pub(super) const fn poisons_connection(&self) -> bool {
        matches!(self.kind, Kind::Unreachable(_) | Kind::TlsFailed(_) | Kind::ReadOnly(_) | Kind::Timeout(_))
    }
}

impl Kind {
    fn of(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Tls(_) => Self::TlsFailed(error),
            // rustls reports a certificate it refuses as an I/O error of the handshake.
            sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => Self::TlsFailed(error),
            sqlx::Error::RowNotFound => Self::NotFound,
            sqlx::Error::Io(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unreachable(error),
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) => {
                Self::SchemaMismatch(error)
            }
            sqlx::Error::Database(database) => match database.code().as_deref().unwrap_or_default() {
                code if code.starts_with("28") || code == "3D000" => Self::AuthFailed(error),
                code if code.starts_with("08") || code.starts_with("57P") => Self::Unreachable(error),
                "53300" | "53400" => Self::TooManyConnections(error),
                "53100" => Self::DiskFull(error),
                "25006" => Self::ReadOnly(error),
                "42501" => Self::GrantsMissing(error),
                "42P01" | "42703" | "42883" | "3F000" => Self::SchemaMismatch(error),
                "23503" | "23505" => Self::Conflict(error),
                code if ["21", "22", "23", "54"].iter().any(|class| code.starts_with(class)) => {
                    Self::InvalidData(error)
                }
                "57014" | "55P03" => Self::GivenUp(error),
                code if code.starts_with("53") || code.starts_with("40") => Self::Interrupted(error),
                _ => Self::Failed(error),
            },
            _ => Self::Failed(error),
        }
    }
}

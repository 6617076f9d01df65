//! Connections that may be cut at any time, and what cuts them.

use sqlx::PgConnection;

use super::*;
use database::Conn;

/// One process's way to the database.
pub(super) struct Line<'a> {
    database: &'a Database,
    login: &'static str,
    conn: Option<Box<Conn>>,
}

/// The connection was cut in the middle of a call, or since the one before it: nobody knows whether it has happened.
#[derive(Debug)]
pub(super) struct Cut;

impl<'a> Line<'a> {
    pub(super) fn new(database: &'a Database, login: &'static str) -> Self {
        Self { database, login, conn: None }
    }

    /// Makes a call on the connection that there is, else on a new one.
    pub(super) async fn call<T>(
        &mut self,
        act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, Cut> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.connect().await,
        };
        match act(&mut conn).await {
            Ok(value) => {
                self.conn = Some(conn);
                Ok(value)
            }
            Err(error) if is_cut(&error) => Err(Cut),
            Err(error) => panic!("{}: {error}", self.login),
        }
    }

    async fn connect(&self) -> Box<Conn> {
        loop {
            match self.database.try_connect(self.login).await {
                Ok(conn) => return conn,
                Err(error) => assert!(is_cut(&error), "{}: {error}", self.login),
            }
        }
    }
}

/// By the server (`admin_shutdown`), or found closed.
fn is_cut(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error.code().as_deref() == Some("57P01"),
        _ => false,
    }
}

/// Cuts connections of agents and leaders, now one that is in a call, now any; how many in all.
pub(super) async fn cut(database: &Database, record: &Recorder, mut rng: StdRng) -> i64 {
    let mut conn = database.superuser().await;
    let mut cuts = 0;
    while !record.is_over() {
        let one = "SELECT count(pg_terminate_backend(pid)) FROM (
                SELECT pid FROM pg_stat_activity
                WHERE datname = current_database() AND usename IN ($1, $2) AND (state = 'active' OR $3)
                ORDER BY random() LIMIT 1) AS chosen";
        let cut: i64 = sqlx::query_scalar(one)
            .bind(database::AGENT)
            .bind(database::CONTROLLER)
            .bind(rng.random_bool(0.3))
            .fetch_one(&mut **conn)
            .await
            .unwrap();
        cuts += cut;
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..150))).await;
    }
    cuts
}

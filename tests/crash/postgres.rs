//! A proxy before PostgreSQL that knows what a client's messages do: commits of writes, and writes outside of transactions, pass the seam.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::seam::Seam;

/// Relays every connection to PostgreSQL's `port`; connections end with the runtime they live on.
pub(crate) async fn relay(listener: TcpListener, port: u16, seam: Arc<Seam>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let seam = Arc::clone(&seam);
        // A broken connection is what the client sees of it.
        tokio::spawn(async move { drop(converse(client, port, &seam).await) });
    }
}

async fn converse(client: TcpStream, port: u16, seam: &Seam) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut client, mut server) = (Side::new(client)?, Side::new(server)?);
    let startup = client.untyped().await?;
    server.send(&startup).await?;
    loop {
        tokio::select! {
            message = server.message() => {
                let message = message?;
                client.send(&message).await?;
                if message[0] == b'Z' { break }
            }
            message = client.message() => server.send(&message?).await?,
        }
    }
    let mut session = Session::default();
    loop {
        let (batch, effect) = session.batch(&mut client).await?;
        let lost = match effect {
            Some(kind) => seam.before(kind).await,
            None => false,
        };
        seam.alive().await;
        server.send(&batch).await?;
        let mut answer = Vec::new();
        loop {
            let message = server.message().await?;
            let kind = message[0];
            answer.extend(message);
            if kind == b'Z' {
                break;
            }
        }
        seam.after(lost).await;
        client.send(&answer).await?;
    }
}

/// What is known of a client's connection.
#[derive(Default)]
struct Session {
    statements: HashMap<String, String>,
    portals: HashMap<String, String>,
    /// The writes of the transaction under way.
    transaction: Option<Vec<String>>,
}

impl Session {
    /// The messages up to the next that the server answers, and the side effect that they have.
    async fn batch(&mut self, client: &mut Side) -> io::Result<(Vec<u8>, Option<String>)> {
        let (mut batch, mut effect) = (Vec::new(), None);
        loop {
            let message = client.message().await?;
            let (kind, body) = (message[0], &message[5..]);
            let mut texts = body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
            let mut text = || texts.next().unwrap_or_default();
            match kind {
                b'P' => _ = self.statements.insert(text(), text()),
                b'B' => {
                    let (portal, statement) = (text(), text());
                    let sql = self.statements.get(&statement).cloned().unwrap_or_default();
                    self.portals.insert(portal, sql);
                }
                b'E' => {
                    let sql = self.portals.get(&text()).cloned().unwrap_or_default();
                    let found = self.executes(&sql);
                    effect = effect.or(found);
                }
                b'Q' => {
                    let found = self.executes(&text());
                    effect = effect.or(found);
                }
                _ => {}
            }
            batch.extend(&message);
            if matches!(kind, b'Q' | b'S') {
                return Ok((batch, effect));
            }
        }
    }

    /// The side effect of a statement: none of a write in a transaction, which is its commit's.
    fn executes(&mut self, sql: &str) -> Option<String> {
        match sql.split_whitespace().next()? {
            "BEGIN" => self.transaction = Some(Vec::new()),
            "ROLLBACK" => self.transaction = None,
            "COMMIT" => {
                let writes = self.transaction.take().unwrap_or_default();
                return (!writes.is_empty()).then(|| format!("commit {}", writes.join(", ")));
            }
            _ => {
                let write = written(sql)?;
                match &mut self.transaction {
                    None => return Some(write),
                    Some(writes) if writes.contains(&write) => {}
                    Some(writes) => writes.push(write),
                }
            }
        }
        None
    }
}

/// Which table a statement writes, and how.
fn written(sql: &str) -> Option<String> {
    let mut words = sql.split_whitespace();
    let verb = words.next()?;
    match verb {
        "INSERT" | "DELETE" => Some(format!("{verb} {}", words.nth(1)?)),
        "UPDATE" => Some(format!("{verb} {}", words.next()?)),
        _ => None,
    }
}

/// One end of a connection, read by messages.
struct Side {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Side {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new() })
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The first message of a connection, which has no type.
    async fn untyped(&mut self) -> io::Result<Vec<u8>> {
        self.framed(0).await
    }

    async fn message(&mut self) -> io::Result<Vec<u8>> {
        self.framed(1).await
    }

    /// A message whose length is after `offset` bytes; what was read of it stays when this is dropped.
    async fn framed(&mut self, offset: usize) -> io::Result<Vec<u8>> {
        loop {
            if let Some(length) = self.read.get(offset..offset + 4) {
                let length = u32::from_be_bytes(length.try_into().unwrap());
                let total = offset + usize::try_from(length).unwrap();
                if self.read.len() >= total {
                    let rest = self.read.split_off(total);
                    return Ok(std::mem::replace(&mut self.read, rest));
                }
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

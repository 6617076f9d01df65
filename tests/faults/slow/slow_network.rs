//! A relay before the database that holds every answer back. The kernel here has no `netem`, so it is a relay on the machine, to which
//! the nodes' address translation leads.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use super::super::*;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
/// The machine, as the nodes see it.
pub(super) const MACHINE: &str = "10.90.0.1";

/// From now on new connections to the database get every answer this late, until the value is dropped.
pub(super) fn delay_answers(delay: Duration) -> Undo {
    let database = kubectl("get pod -n volumeviz volumeviz-database-0 -o jsonpath={.status.podIP}");
    let listener = TcpListener::bind((MACHINE, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            if let Ok(server) = TcpStream::connect((database.as_str(), 5432)) {
                relay(client.try_clone().unwrap(), server.try_clone().unwrap(), Duration::ZERO);
                relay(server, client, delay);
            }
        }
    });
    let rule = format!("PREROUTING ! -s {MACHINE} -p tcp --dport 5432 -j DNAT --to-destination {MACHINE}:{port}");
    let insert = format!("iptables -t nat -I {rule}");
    let back = Undo::new(move || {
        for node in NODES {
            tell("undo", try_in_node(node, &format!("iptables -t nat -D {rule}")));
        }
        // Who was led to the relay stays there until it connects anew.
        tell("undo", try_sql(CUT_CONNECTIONS));
    });
    for node in NODES {
        in_node(node, &insert);
    }
    back
}

fn relay(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    std::thread::spawn(move || {
        let mut buffer = [0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            std::thread::sleep(delay);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
    });
}

//! The bare loop: the least that a server of event streams can do, as a measure for the others.
//!
//! One thread, one epoll. It accepts, answers every request with the same head, and, when told
//! through its control connection, sends one buffer to every socket. It is started as a process of
//! its own (`flagcast-loadtest bare-loop`) and ends with its control connection.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, bail};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::control::DONE;
use crate::client::end_of_head;

const STREAMS: Token = Token(usize::MAX);
const CONTROL_LISTENER: Token = Token(usize::MAX - 1);
const CONTROL: Token = Token(usize::MAX - 2);

/// The head of every answer; the gateway's says the same.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    cache-control: no-store, no-transform\r\nx-accel-buffering: no\r\n\
    access-control-allow-origin: *\r\ntransfer-encoding: chunked\r\n\r\n";

#[derive(Debug)]
struct BareLoop {
    poll: Poll,
    streams: TcpListener,
    control_listener: TcpListener,
    control: Option<TcpStream>,
    /// A token is an index into it.
    clients: Vec<Option<TcpStream>>,
}

/// Runs until the control connection ends. Prints both addresses on a line first.
#[expect(clippy::print_stdout, reason = "the parent reads the addresses there")]
pub(crate) fn run() -> anyhow::Result<()> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut bare = BareLoop {
        poll: Poll::new()?,
        streams: TcpListener::bind(any)?,
        control_listener: TcpListener::bind(any)?,
        control: None,
        clients: Vec::new(),
    };
    let registry = bare.poll.registry();
    registry.register(&mut bare.streams, STREAMS, Interest::READABLE)?;
    registry.register(&mut bare.control_listener, CONTROL_LISTENER, Interest::READABLE)?;
    let (streams, control) = (bare.streams.local_addr()?, bare.control_listener.local_addr()?);
    println!("{streams} {control}");
    let mut events = Events::with_capacity(1024);
    loop {
        match bare.poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                STREAMS => bare.accept()?,
                CONTROL_LISTENER => bare.accept_control()?,
                CONTROL => {
                    if !bare.obey()? {
                        return Ok(());
                    }
                }
                Token(index) => bare.greet(index)?,
            }
        }
    }
}

impl BareLoop {
    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let mut client = match self.streams.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("the bare loop cannot accept"),
            };
            client.set_nodelay(true)?;
            let token = Token(self.clients.len());
            self.poll.registry().register(&mut client, token, Interest::READABLE)?;
            self.clients.push(Some(client));
        }
    }

    fn accept_control(&mut self) -> anyhow::Result<()> {
        let (mut control, _) = self.control_listener.accept()?;
        self.poll.registry().register(&mut control, CONTROL, Interest::READABLE)?;
        self.control = Some(control);
        Ok(())
    }

    /// Reads a request and answers its head. Requests here are small and come whole.
    fn greet(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(client) = self.clients[index].as_mut() else {
            return Ok(());
        };
        let mut buffer = [0; 2048];
        match client.read(&mut buffer) {
            Ok(0) => self.clients[index] = None,
            Ok(length) if end_of_head(&buffer[..length]).is_some() => client.write_all(HEAD)?,
            Ok(_) => bail!("the bare loop got a request in pieces"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.clients[index] = None,
        }
        Ok(())
    }

    /// Reads a revision and sends its frame to everybody. Tells whether to go on.
    fn obey(&mut self) -> anyhow::Result<bool> {
        let Some(control) = self.control.as_mut() else {
            return Ok(true);
        };
        let mut buffer = [0; 64];
        let length = match control.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error).context("the control connection broke"),
        };
        let revision = std::str::from_utf8(&buffer[..length])?.trim().parse()?;
        let frame = chunk(&event(revision));
        for client in &mut self.clients {
            // A client that went away, or one that does not read, is the next measurement's loss.
            let gone =
                client.as_mut().is_some_and(|client| client.write_all(frame.as_bytes()).is_err());
            if gone {
                *client = None;
            }
        }
        control.write_all(DONE.as_bytes())?;
        Ok(true)
    }
}

/// The data of a ping, as long as the gateway's.
pub(super) fn data(revision: u64) -> String {
    let url = "http://127.0.0.1:45678/sdk/v1/environments/npfo95nMwUw8cjHXdHi2hG/flags?rev=";
    format!(
        "{{\"updated_at\": 1763790000.015625, \"revision\": {revision}, \
         \"flags_url\": \"{url}{revision}\", \"heartbeat_s\": 15}}"
    )
}

pub(super) fn event(revision: u64) -> String {
    let data = data(revision);
    format!("event: environment_updated\ndata: {data}\nretry: 15000\n\n")
}

/// `event` as one chunk of an HTTP/1.1 body.
fn chunk(event: &str) -> String {
    format!("{:X}\r\n{event}\r\n", event.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_chunk() {
        assert_eq!(chunk("data: x\n\n"), "9\r\ndata: x\n\n\r\n");
        let event = event(7);
        assert!(event.contains("\"revision\": 7, ") && event.ends_with("\nretry: 15000\n\n"));
    }
}

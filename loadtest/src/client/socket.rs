//! The sockets of streams: where they come from, how much they hold, and when the kernel received
//! what they read.

use std::io::{Error, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, ensure};
use mio::net::TcpStream;
use nix::errno::Errno;
use nix::libc::linger;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn, bind, connect,
    recvmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;

/// Addresses that clients come from, `127.0.1.1` and up: each has ports of its own.
const SOURCES: u8 = 200;

/// Keeps the kernel stamping while it is held. The kernel turns stamping on and off a moment after
/// the first socket asks for it and the last one is gone; what comes in that moment has no stamp.
#[derive(Debug)]
pub(crate) struct Stamping {
    _socket: UdpSocket,
}

impl Stamping {
    /// Asks for stamps on a socket that nobody writes to.
    pub(crate) fn keep_on() -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").context("cannot open a socket")?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)
            .context("the kernel does not stamp what it receives")?;
        Ok(Self { _socket: socket })
    }
}

/// Begins to connect client number `index` to `address`; nothing if nobody listens. `tiny` sockets hold as little as the
/// kernel allows, so that a client that does not read is felt early.
pub(super) fn begin(
    address: SocketAddr,
    index: usize,
    tiny: bool,
) -> anyhow::Result<Option<TcpStream>> {
    let SocketAddr::V4(address) = address else {
        anyhow::bail!("{address} is no IPv4 address");
    };
    ensure!(address.ip().is_loopback(), "{address} is not on this machine");
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)
        .context("cannot open a socket for a client")?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)
        .context("the kernel does not stamp what it receives")?;
    if tiny {
        setsockopt(&socket, sockopt::RcvBuf, &1)?;
    }
    // The port is chosen when it connects: then it need only differ for the same pair of addresses.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    let source = SockaddrIn::from(SocketAddrV4::new(source(index), 0));
    bind(socket.as_raw_fd(), &source).context("cannot bind a client's address")?;
    match connect(socket.as_raw_fd(), &SockaddrIn::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {
            Ok(Some(TcpStream::from_std(std::net::TcpStream::from(socket))))
        }
        Err(Errno::ECONNREFUSED) => Ok(None),
        Err(error) => {
            Err(Error::from(error)).with_context(|| format!("cannot connect to {address}"))
        }
    }
}

fn source(index: usize) -> Ipv4Addr {
    let last = u8::try_from(index % usize::from(SOURCES)).unwrap_or_default();
    Ipv4Addr::new(127, 0, 1, last + 1)
}

/// Makes the coming close a reset.
pub(super) fn reset_on_close(stream: &TcpStream) -> anyhow::Result<()> {
    let at_once = linger { l_onoff: 1, l_linger: 0 };
    setsockopt(stream, sockopt::Linger, &at_once).context("cannot make a close a reset")
}

/// Receives bytes and the time at which the last of them came in, in nanoseconds since the epoch.
pub(super) fn receive(
    stream: &TcpStream,
    buffer: &mut [u8],
    control: &mut [u8],
) -> Result<(usize, Option<i64>), Errno> {
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(control), MsgFlags::empty())?;
    let stamp = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(at) => Some(nanoseconds(at)),
        _ => None,
    });
    Ok((message.bytes, stamp))
}

fn nanoseconds(at: TimeSpec) -> i64 {
    at.tv_sec() * 1_000_000_000 + at.tv_nsec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_come_from_many_addresses_of_this_machine() {
        assert_eq!(source(0), Ipv4Addr::new(127, 0, 1, 1));
        assert_eq!(source(199), Ipv4Addr::new(127, 0, 1, 200));
        assert_eq!(source(200), source(0));
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 80));
        assert!(begin(elsewhere, 0, false).is_err(), "only this machine is loaded");
    }
}

//! How many connections wait in the kernel to be accepted.
//!
//! The kernel tells that of a listening socket through `sock_diag` (see `sock_diag(7)`): one request,
//! one answer, however many connections there are; `/proc/net/tcp` would list them all.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{recv, sendto, socket_with};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST` of `linux/netlink.h`.
const REQUEST: u16 = 1;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// `TCP_LISTEN` of `linux/tcp_states.h`, as a bit.
const LISTEN: u32 = 1 << 10;
/// Length of `nlmsghdr`.
const HEADER: usize = 16;
/// `idiag_rqueue` in `inet_diag_msg`, behind the header: of a listening socket the queue.
const QUEUE: usize = HEADER + 56;

/// Asks about one listening socket.
#[derive(Debug)]
pub(super) struct Backlog {
    netlink: OwnedFd,
    request: Vec<u8>,
}

impl Backlog {
    /// For the socket that listens at `address`.
    pub(super) fn of(address: SocketAddr) -> io::Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::DGRAM);
        let netlink = socket_with(family, kind, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
        Ok(Self { netlink, request: request(address) })
    }

    /// Connections that wait now.
    pub(super) fn waiting(&self) -> io::Result<u32> {
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.netlink, &self.request, SendFlags::empty(), &kernel)?;
        let mut answer = [0_u8; 512];
        // The kernel answers before the request returns.
        let (length, _) = recv(&self.netlink, &mut answer, RecvFlags::DONTWAIT)?;
        queue(&answer[..length]).ok_or_else(|| io::Error::other("no answer about this socket"))
    }
}

/// `nlmsghdr` and `inet_diag_req_v2`.
fn request(address: SocketAddr) -> Vec<u8> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut local = [0; 16];
    match address.ip() {
        IpAddr::V4(ip) => local[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => local.copy_from_slice(&ip.octets()),
    }
    let mut body = Vec::new();
    body.push(u8::try_from(family.as_raw()).unwrap_or(0));
    body.extend([TCP, 0, 0]);
    body.extend(LISTEN.to_ne_bytes());
    body.extend(address.port().to_be_bytes());
    body.extend([0; 2]);
    body.extend(local);
    // No peer, any interface, any cookie.
    body.extend([0; 16]);
    body.extend([0; 4]);
    body.extend([0xff; 8]);
    let length = u32::try_from(HEADER + body.len()).unwrap_or(0);
    let mut request = Vec::new();
    request.extend(length.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    request
}

fn queue(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let queue = answer.get(QUEUE..QUEUE + 4)?;
    (kind == BY_FAMILY).then_some(u32::from_ne_bytes(queue.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_counts_those_who_wait() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            // Not every machine has IPv6.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let address = listener.local_addr().unwrap();
            let backlog = Backlog::of(address).unwrap();
            assert_eq!(backlog.waiting().unwrap(), 0, "{address}");
            let reach = if address.ip().is_unspecified() {
                SocketAddr::from(([127, 0, 0, 1], address.port()))
            } else {
                address
            };
            let peers: Vec<_> = (0..3).map(|_| TcpStream::connect(reach).unwrap()).collect();
            assert_eq!(backlog.waiting().unwrap(), 3, "{address}");
            listener.accept().unwrap();
            assert_eq!(backlog.waiting().unwrap(), 2, "{address}");
            drop(peers);
        }
    }
}

//! The words of NETLINK_SOCK_DIAG (`sock_diag(7)`): a question for one port with the kernel's own filter, and its
//! answers. Pure: bytes in, bytes out, in the host's byte order but for ports and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x1 | 0x300;
const DUMP_INTERRUPTED: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const TCP: u8 = 6;
const HEADER_BYTES: usize = 16;
const ANSWER_BYTES: usize = 72;
const QUESTION_BYTES: u32 = 92;

/// TCP states that are work: SYN_RECV, ESTABLISHED, FIN_WAIT1, CLOSE_WAIT, LAST_ACK, CLOSING, NEW_SYN_RECV. Not LISTEN;
/// and not FIN_WAIT2, TIME_WAIT and CLOSE, in which everything that was sent has been acknowledged.
const STATES: u32 = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 8 | 1 << 9 | 1 << 11 | 1 << 12;

/// An address family of sockets. One of version 6 may carry version 4 too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// The question: who is connected to this local port?
pub(super) fn question(family: Family, port: u16, seq: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(QUESTION_BYTES.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST_DUMP.to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    // inet_diag_req_v2: family, protocol, extensions, padding, states, and an empty socket id.
    bytes.extend([family.number(), TCP, 0, 0]);
    bytes.extend(STATES.to_ne_bytes());
    bytes.extend([0; 48]);
    // INET_DIAG_REQ_BYTECODE: "source port >= p" and "source port <= p"; each is two words, the second holds the port.
    // `yes` leads to the next word after them, `no` beyond the end, which rejects.
    let attribute_bytes = 20_u16;
    bytes.extend(attribute_bytes.to_ne_bytes());
    bytes.extend(1_u16.to_ne_bytes());
    for (code, no) in [(2_u8, 20_u16), (3, 12)] {
        bytes.extend([code, 8]);
        bytes.extend(no.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(port.to_ne_bytes());
    }
    bytes
}

/// What a piece of the answer held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Piece {
    /// Who is connected.
    pub(super) peers: Vec<SocketAddr>,
    /// Nothing follows.
    pub(super) done: bool,
    /// The tables changed meanwhile: ask again.
    pub(super) interrupted: bool,
    /// The kernel refused, with this errno.
    pub(super) errno: Option<i32>,
}

/// Reads one datagram of the answer. Messages that answer another question are passed over.
pub(super) fn piece(mut bytes: &[u8], seq: u32) -> Option<Piece> {
    let mut piece = Piece::default();
    while bytes.len() >= HEADER_BYTES {
        let length = usize::try_from(u32::from_ne_bytes(array(bytes, 0)?)).ok()?;
        let (kind, flags) = (u16::from_ne_bytes(array(bytes, 4)?), u16::from_ne_bytes(array(bytes, 6)?));
        let ours = u32::from_ne_bytes(array(bytes, 8)?) == seq;
        let body = bytes.get(HEADER_BYTES..length)?;
        if ours {
            piece.interrupted |= flags & DUMP_INTERRUPTED != 0;
            match kind {
                NLMSG_DONE => piece.done = true,
                NLMSG_ERROR => piece.errno = Some(i32::from_ne_bytes(array(body, 0)?).wrapping_neg()),
                SOCK_DIAG_BY_FAMILY => piece.peers.push(peer(body)?),
                _ => {}
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(piece)
}

/// inet_diag_msg: family, state, timer, retransmits; source port, destination port, source, destination.
fn peer(body: &[u8]) -> Option<SocketAddr> {
    body.get(..ANSWER_BYTES)?;
    let port = u16::from_be_bytes(array(body, 6)?);
    let ip = match *body.first()? {
        2 => IpAddr::V4(Ipv4Addr::from(array::<4>(body, 24)?)),
        _ => IpAddr::V6(Ipv6Addr::from(array::<16>(body, 24)?)).to_canonical(),
    };
    Some(SocketAddr::new(ip, port))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, seq: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + body.len()).expect("short");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(0_u16.to_ne_bytes());
        bytes.extend(seq.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    fn answer(family: u8, port: u16, to: &[u8]) -> Vec<u8> {
        let mut body = vec![family, 1, 0, 0];
        body.extend(9000_u16.to_be_bytes());
        body.extend(port.to_be_bytes());
        body.extend([0; 16]);
        body.extend(to);
        body.resize(ANSWER_BYTES, 0);
        body
    }

    #[test]
    fn the_question_is_as_long_as_it_says_and_names_the_port_twice() {
        let bytes = question(Family::V6, 9000, 7);
        assert_eq!(bytes.len(), usize::try_from(QUESTION_BYTES).expect("short"));
        let ports = bytes.windows(2).filter(|two| **two == 9000_u16.to_ne_bytes()).count();
        assert_eq!((ports, bytes[16]), (2, 10));
    }

    #[test]
    fn answers_of_both_families_are_read_and_mapped_addresses_are_plain() {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 9];
        let mut bytes = message(SOCK_DIAG_BY_FAMILY, 7, &answer(2, 41, &[10, 0, 0, 7]));
        bytes.extend(message(SOCK_DIAG_BY_FAMILY, 7, &answer(10, 42, &mapped)));
        bytes.extend(message(SOCK_DIAG_BY_FAMILY, 6, &answer(2, 43, &[10, 0, 0, 8])));
        bytes.extend(message(NLMSG_DONE, 7, &[0; 4]));
        let read = piece(&bytes, 7).expect("a whole answer");
        let all = ["10.0.0.7:41", "10.0.0.9:42"].map(|it| it.parse::<SocketAddr>().expect("address"));
        assert_eq!(read, Piece { peers: all.into(), done: true, ..Piece::default() });
    }

    #[test]
    fn a_refusal_has_its_errno_and_torn_bytes_are_no_answer() {
        let bytes = message(NLMSG_ERROR, 7, &(-2_i32).to_ne_bytes());
        assert_eq!(piece(&bytes, 7).expect("an answer").errno, Some(2));
        let whole = message(SOCK_DIAG_BY_FAMILY, 7, &answer(2, 41, &[10, 0, 0, 7]));
        for cut in HEADER_BYTES..whole.len() {
            assert_eq!(piece(&whole[..cut], 7), None, "{cut}");
        }
    }
}

//! A name server that knows no name, at the address in its argument, for machines without one, on
//! which lookups would otherwise time out. Never installed.

#![allow(clippy::unwrap_used, reason = "a program for tests may panic")]

use std::net::UdpSocket;

/// A recursive answer, NXDOMAIN (RFC 1035, 4.1.1).
const NO_SUCH_NAME: [u8; 2] = [0x81, 0x83];

fn main() {
    let address = std::env::args().nth(1).unwrap();
    let socket = UdpSocket::bind((address.as_str(), 53)).unwrap();
    let mut message = [0; 512];
    loop {
        // An answer to a closed socket makes the next receive fail.
        let Ok((length, from)) = socket.recv_from(&mut message) else { continue };
        if length > 3 {
            message[2..4].copy_from_slice(&NO_SUCH_NAME);
            let _ = socket.send_to(&message[..length], from);
        }
    }
}

//! What a pod runs that shall not lose a moment: it sends before it does anything else, to a server that it may reach and to one
//! that it may not, and goes on. Owns no judgement: who got what is counted where it arrives.
//!
//! Arguments: the address and port of either, one behind the other. A datagram holds its number and when it was sent, in
//! milliseconds since 1970, both of 8 octets.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Datagrams that follow one another closely.
const HURRIED: u64 = 25;

fn main() {
    let mut servers = std::env::args().skip(1).map(|word| word.parse::<SocketAddr>().expect("an address and a port"));
    let [may, must_not] = [(); 2].map(|()| servers.next().expect("two servers"));
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    for number in 0_u64.. {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_millis() as u64;
        let datagram = [number.to_be_bytes(), time.to_be_bytes()].concat();
        // A refusal is an answer like another: it shows in what does not arrive.
        for server in [must_not, may] {
            let _ = socket.send_to(&datagram, server);
        }
        if number == 0 {
            std::thread::spawn(move || TcpStream::connect_timeout(&must_not, Duration::from_secs(5)));
        }
        std::thread::sleep(Duration::from_millis(if number < HURRIED { 4 } else { 100 }));
    }
}

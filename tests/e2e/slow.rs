//! Clients that are slow on purpose, and what each of their connections costs.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use kit::{Turn, figure, process, wait_until};

use crate::examples::Example;

/// What a connection may cost before anybody knows whose it is.
const PROMISE_KIB: u64 = 64;
/// Connections of each sort.
const COUNT: usize = 300;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A frame of a block that never ends: one field of 15,000 octets, never indexed.
fn part(kind: u8) -> Vec<u8> {
    let mut block = vec![0x10, 3];
    block.extend(b"x-a");
    block.extend([127, 0x99, 0x74]);
    block.resize(block.len() + 15_000, b'y');
    let length = u32::try_from(block.len()).expect("short").to_be_bytes();
    let head = [length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
    [&head[..], &block].concat()
}

/// Whoever says half of something and then nothing holds 64 KiB at most, and nobody else up.
#[test]
fn a_connection_without_a_request_holds_64_kib_at_most() {
    let _turn = Turn::beside();
    let example = Example::new("11-websocket");
    let node = example.node();
    let http = format!("{}:18080", example.host);
    let address = http.parse().expect("an address");
    let mut client = kit::Client::new();
    let mut ask = || {
        client
            .get(address, "nobody.example", "/")
            .map(|reply| reply.status)
    };
    wait_until("an answer", Duration::from_secs(10), || {
        let status = ask()?;
        (status == 404).then_some(()).ok_or(status.to_string())
    });
    let before = process::pss_kib(node.pid()).expect("it runs");
    let h1 = [&b"GET / HTTP/1.1\r\nHost: a\r\nX-A: "[..], &[b'y'; 30_000]].concat();
    let h2 = [PREFACE, &part(1), &part(9)].concat();
    let sorts: [&[u8]; 4] = [b"", &h1, PREFACE, &h2];
    let mut open = Vec::new();
    for said in sorts {
        for _ in 0..COUNT {
            let mut stream = TcpStream::connect(&http).expect("connected");
            stream.write_all(said).expect("written");
            open.push(stream);
        }
    }
    // What was said before is read when this is answered.
    assert_eq!(ask(), Ok(404));
    for stream in &mut open[2 * COUNT..] {
        let mut first = [0; 9];
        stream.read_exact(&mut first).expect("settings");
    }
    let grown = process::pss_kib(node.pid())
        .expect("it runs")
        .saturating_sub(before);
    let each = grown.div_ceil(open.len() as u64);
    figure(format!(
        "memory: {each} KiB a connection that says half of something"
    ));
    assert!(each <= PROMISE_KIB, "{each} KiB for each of {}", open.len());
}

//! On the loopback interface of the real kernel.

use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// What a connection that must succeed may take.
const BOUND: Duration = Duration::from_secs(5);
/// How long to see that nothing gets through: the kernel repeats a SYN after a second.
const SILENCE: Duration = Duration::from_millis(1500);

const LOOPBACKS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

fn key(text: &str) -> Md5Key {
    Md5Key::new(text).expect("a key")
}

fn listening(ip: IpAddr) -> (TcpListener, SocketAddr) {
    let listener = listener((ip, 0).into()).expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// Does this kernel have TCP-MD5? Where nothing may be skipped it must.
fn has_md5() -> bool {
    let (listener, _) = listening(LOOPBACKS[0]);
    let Err(error) = set_md5(&listener, LOOPBACKS[0], Some(&key("a"))) else {
        return true;
    };
    println!("skipped: this kernel has no TCP-MD5: {error}");
    assert!(
        std::env::var("SEALANE_REQUIRE").as_deref() != Ok("all"),
        "TCP-MD5 is required: {error}"
    );
    false
}

async fn connects(listener: &TcpListener, options: &Options) -> (TcpStream, TcpStream) {
    let address = listener.local_addr().expect("an address");
    let (dialled, accepted) = tokio::time::timeout(BOUND, async {
        tokio::join!(connect(address, options, BOUND), listener.accept())
    })
    .await
    .expect("in time");
    (dialled.expect("dialled"), accepted.expect("accepted").0)
}

/// Dials and expects silence.
async fn is_silent(address: SocketAddr, options: &Options) {
    let error = connect(address, options, SILENCE)
        .await
        .expect_err("nobody answers");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
}

async fn passes(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    from.write_all(b"x").await.expect("written");
    let mut octet = [0];
    tokio::time::timeout(SILENCE, to.read_exact(&mut octet))
        .await
        .is_ok_and(|read| read.is_ok())
}

#[test]
fn keys_have_one_to_eighty_octets() {
    assert_eq!(Md5Key::new(vec![]), Err(Md5KeyError::Empty));
    assert!(Md5Key::new(vec![1; 80]).is_ok());
    let error = Md5Key::new(vec![1; 81]).expect_err("too long");
    assert_eq!(
        error.to_string(),
        "a TCP-MD5 key has at most 80 octets, not 81"
    );
    assert_eq!(format!("{:?}", key("secret")), "Md5Key(..)");
}

#[tokio::test]
async fn the_same_key_connects_and_another_does_not() {
    if !has_md5() {
        return;
    }
    for ip in LOOPBACKS {
        let (listener, address) = listening(ip);
        let with = |text: &str| Options {
            md5: Some(key(text)),
            ..Options::default()
        };
        // Keys change while the listener is live: none yet, set, replaced, removed twice.
        let (right, wrong) = (with(&"k".repeat(80)), with("wrong"));
        let unsigned = Options::default();
        tokio::join!(is_silent(address, &right), async {
            drop(connects(&listener, &unsigned).await)
        });
        set_md5(&listener, ip, right.md5.as_ref()).expect("set");
        let (mut ours, mut theirs) = connects(&listener, &right).await;
        tokio::join!(is_silent(address, &wrong), is_silent(address, &unsigned));
        set_md5(&listener, ip, wrong.md5.as_ref()).expect("replaced");
        drop(connects(&listener, &wrong).await);
        assert!(
            passes(&mut ours, &mut theirs).await,
            "an accepted connection keeps its key"
        );
        set_md5(&listener, ip, None).expect("removed");
        set_md5(&listener, ip, None).expect("no error when it is gone");
        drop(connects(&listener, &unsigned).await);
    }
}

#[tokio::test]
async fn a_packet_from_afar_is_dropped() {
    let near = Options {
        reach: Reach::Within { hops: 1 },
        ..Options::default()
    };
    let far = Options {
        reach: Reach::Ttl(64),
        ..Options::default()
    };
    for ip in LOOPBACKS {
        // On the accepted connection only: the listener serves everybody.
        let (listener, address) = listening(ip);
        let (mut ours, mut theirs) = connects(&listener, &near).await;
        prepare(&theirs, &near).expect("prepared");
        assert!(passes(&mut ours, &mut theirs).await && passes(&mut theirs, &mut ours).await);
        set_reach(&ours, far.reach).expect("set");
        assert!(!passes(&mut ours, &mut theirs).await, "64 is not 255");
        drop(connects(&listener, &far).await);
        // On the listener: not even a SYN.
        set_reach(&listener, near.reach).expect("set");
        drop(connects(&listener, &near).await);
        is_silent(address, &far).await;
        set_reach(&listener, Reach::Within { hops: 192 }).expect("set");
        drop(connects(&listener, &far).await);
    }
}

#[tokio::test]
async fn both_ends_have_the_options() {
    for ip in LOOPBACKS {
        let (listener, address) = listening(ip);
        let options = Options {
            reach: Reach::Ttl(3),
            user_timeout: Some(Duration::from_secs(90)),
            ..Options::default()
        };
        let (ours, theirs) = connects(&listener, &options).await;
        prepare(&theirs, &options).expect("prepared");
        for stream in [&ours, &theirs] {
            let socket = SockRef::from(stream);
            let (class, ttl) = if address.is_ipv6() {
                (socket.tclass_v6(), socket.unicast_hops_v6())
            } else {
                (socket.tos_v4(), socket.ttl_v4())
            };
            assert_eq!(class.expect("class") & 0xFC, TOS_CS6);
            assert_eq!(ttl.expect("ttl"), 3);
            assert!(socket.tcp_nodelay().expect("nodelay"));
            let timeout = socket.tcp_user_timeout().expect("timeout");
            assert_eq!(timeout, Some(Duration::from_secs(90)));
        }
    }
}

#[tokio::test]
async fn we_dial_from_the_address_asked_for() {
    let (listener, address) = listening(LOOPBACKS[0]);
    let from = |source: SocketAddr| Options {
        source: Some(source),
        ..Options::default()
    };
    let (_ours, theirs) = connects(&listener, &from(([127, 0, 0, 9], 0).into())).await;
    let peer = theirs.peer_addr().expect("a peer");
    assert_eq!(peer.ip(), IpAddr::from([127, 0, 0, 9]));
    let other = from((Ipv6Addr::LOCALHOST, 0).into());
    let error = connect(address, &other, BOUND).await.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

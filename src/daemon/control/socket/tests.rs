//! The socket, with clients of all kinds.

use std::net::IpAddr;

use super::super::client::ask;
use super::super::message::Order;
use super::*;

const T0: Timestamp = Timestamp(1);
const SOON: Duration = Duration::from_secs(20);

fn any(ask: Order) -> AddressedOrder {
    let of = Vec::new();
    AddressedOrder { of, ask }
}

fn poll(control: &ControlSocket) {
    use nix::poll::{PollFd, PollTimeout, poll};
    let mut fds: Vec<_> = control
        .polled()
        .map(|(fd, wanted)| PollFd::new(fd, wanted))
        .collect();
    assert!(poll(&mut fds, PollTimeout::from(5000u16)).unwrap() > 0);
}

fn client(path: &Path) -> Socket {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    socket.connect(&SockAddr::unix(path).unwrap()).unwrap();
    socket
}

#[test]
fn a_request_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    assert!(ask(&path, &any(Order::Status), SOON).unwrap().is_none());
    let mut control = ControlSocket::listen(&path).unwrap();
    let asked = Order::Open {
        door: "ssh".into(),
        address: IpAddr::from([192, 0, 2, 7]),
        lifetime: Some(Duration::from_millis(5)),
    };
    let client = std::thread::spawn({
        let (path, asked) = (path.clone(), asked.clone());
        move || ask(&path, &any(asked), SOON)
    });
    let mut heard = Vec::new();
    while heard.is_empty() {
        poll(&control);
        control.serve(T0, |order| {
            heard.push(order.ask);
            Answer::Now(Reply::Done(vec!["so it is".into()]))
        });
    }
    assert_eq!(heard, [asked]);
    let reply = client.join().unwrap().unwrap();
    assert_eq!(reply, Some(Reply::Done(vec!["so it is".into()])));
    drop(control);
    assert!(!path.exists());
}

#[test]
fn rubbish_is_refused_and_silence_runs_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let mut control = ControlSocket::listen(&path).unwrap();
    let (mut rude, silent) = (client(&path), client(&path));
    rude.send(&[0xff; 9000]).unwrap();
    control.serve(T0, |_| unreachable!("nothing sensible was asked"));
    control.serve(T0, |_| unreachable!("nothing sensible was asked"));
    let mut text = [0; 500];
    let length = rude.read(&mut text).unwrap();
    assert!(String::from_utf8_lossy(&text[..length]).contains("refused"));
    assert_eq!(control.next_deadline(), Some(T0 + PATIENCE));
    control.serve(T0 + PATIENCE, |_| unreachable!("nothing was asked"));
    assert_eq!(control.next_deadline(), None);
    drop(silent);
    let crowd: Vec<_> = (0..50).map(|_| connect_or_not(&path)).collect();
    for _ in 0..50 {
        control.serve(T0, |_| unreachable!("nothing was asked"));
    }
    assert!(control.polled().count() <= CLIENTS + 1);
    drop(crowd);
}

fn connect_or_not(path: &Path) -> Socket {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let _ = socket.connect(&SockAddr::unix(path).unwrap());
    socket
}

/// Answers clients until the thread has its answer.
fn serve_until<T>(
    control: &mut ControlSocket,
    asking: std::thread::JoinHandle<T>,
    answer: impl Fn(AddressedOrder) -> Reply,
) -> T {
    while !asking.is_finished() {
        poll_a_while(control);
        control.serve(T0, |order| Answer::Now(answer(order)));
    }
    asking.join().unwrap()
}

fn poll_a_while(control: &ControlSocket) {
    use nix::poll::{PollFd, PollTimeout, poll};
    let polled = control.polled();
    let mut fds: Vec<_> = polled.map(|(fd, wanted)| PollFd::new(fd, wanted)).collect();
    poll(&mut fds, PollTimeout::from(5u16)).unwrap();
}

/// Larger than a message may be, and than a send buffer is.
#[test]
fn an_answer_may_be_of_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let mut control = ControlSocket::listen(&path).unwrap();
    for size in [0, 1, LONGEST_PART - 15, LONGEST_PART, 300_000, 5_000_000] {
        let long = "x".repeat(size);
        let asking = std::thread::spawn({
            let path = path.clone();
            move || ask(&path, &any(Order::Status), SOON)
        });
        let reply = serve_until(&mut control, asking, |_| Reply::Refused(long.clone()));
        assert_eq!(reply.unwrap(), Some(Reply::Refused(long.clone())), "{size}");
    }
    // A client that does not read its reply loses its place, and the reply is dropped.
    let silent = client(&path);
    silent.send(b"\"status\"").unwrap();
    control.serve(T0, |_| Answer::Now(Reply::Refused("x".repeat(5_000_000))));
    control.serve(T0, |_| unreachable!("it was answered"));
    assert_eq!(control.next_deadline(), Some(T0 + PATIENCE));
    control.serve(T0 + PATIENCE, |_| unreachable!("it was answered"));
    assert_eq!(control.next_deadline(), None);
}

/// A client that was told that the daemon does not answer is not obeyed later.
#[test]
fn who_has_gone_is_not_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let mut control = ControlSocket::listen(&path).unwrap();
    ask(&path, &any(Order::Clear), Duration::from_millis(50)).unwrap_err();
    control.serve(T0, |order| unreachable!("{order:?}"));
    assert_eq!(control.next_deadline(), None);
}

/// A daemon that is stopped takes nobody in, and soon there is no room to wait in.
#[test]
fn no_client_waits_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let patience = Duration::from_millis(300);
    // With no room for one more, and with some.
    for crowd in [50, 0] {
        let control = ControlSocket::listen(&path).unwrap();
        let crowd: Vec<_> = (0..crowd).map(|_| connect_or_not(&path)).collect();
        let asked = std::time::Instant::now();
        let error = ask(&path, &any(Order::Clear), patience).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("stopped or hangs"), "{error}");
        assert!(asked.elapsed() >= patience);
        // A second daemon does not wait for ever either.
        let second = ControlSocket::listen(&path).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop((crowd, control));
    }
}

/// If daemons start together, one of them has the socket, and keeps it.
#[test]
fn nobody_takes_the_socket_from_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    for _ in 0..50 {
        // As a daemon that was killed has left it.
        let left = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        left.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        drop(left);
        let starting: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || ControlSocket::listen(&path))
            })
            .collect();
        let started: Vec<_> = starting.into_iter().map(|s| s.join().unwrap()).collect();
        let mut listening: Vec<_> = started.into_iter().filter_map(Result::ok).collect();
        assert_eq!(listening.len(), 1);
        let _client = client(&path);
        poll(&listening[0]);
        drop(listening.pop());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn who_has_a_reload_done_is_answered_when_it_is_done_and_not_kept_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let mut control = ControlSocket::listen(&path).unwrap();
    let late = Reply::Refused("too late".into());
    let ask_for = |control: &mut ControlSocket, reload| {
        let mut client = client(&path);
        client.send(b"\"reload\"").unwrap();
        client.set_nonblocking(true).unwrap();
        let late = late.clone();
        control.serve(T0, |_| Answer::AfterReload {
            reload,
            late: late.clone(),
        });
        move || {
            let mut text = [0; 500];
            let length = client.read(&mut text).ok()?;
            serde_json::from_slice::<Reply>(&text[..length]).ok()
        }
    };
    let mut first = ask_for(&mut control, 1);
    // While the first is being read.
    let mut second = ask_for(&mut control, 2);
    assert_eq!(control.next_deadline(), Some(T0 + PATIENCE_FOR_A_RELOAD));
    let good = Reply::Done(vec!["good".into()]);
    control.reloaded(1, &good, T0);
    assert_eq!((first(), second()), (Some(good), None));
    control.serve(T0, |_| unreachable!("nothing was asked"));
    assert_eq!(second(), None);
    control.serve(T0 + PATIENCE_FOR_A_RELOAD, |_| {
        unreachable!("nothing was asked")
    });
    assert_eq!(second(), Some(late.clone()));
    assert_eq!(control.next_deadline(), None);
    // A client that has gone does not keep its place.
    drop(ask_for(&mut control, 3));
    poll(&control);
    control.serve(T0, |_| unreachable!("nothing was asked"));
    assert_eq!(control.polled().count(), 1);
}

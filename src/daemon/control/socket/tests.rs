//! The socket, with clients of all kinds.

use super::super::dial::ask;
use super::*;

const T0: Timestamp = Timestamp(1);
const SOON: Duration = Duration::from_secs(20);

fn any(ask: Request) -> Order {
    let of = Vec::new();
    Order { of, ask }
}

fn poll(control: &Control) {
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
fn asks_and_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    assert!(ask(&path, &any(Request::Status), SOON).unwrap().is_none());
    let mut control = Control::listen(&path).unwrap();
    let asked = Request::Open {
        door: "ssh".into(),
        address: IpAddr::from([192, 0, 2, 7]),
        for_ms: Some(5),
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
            Reply::Done(vec!["so it is".into()])
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
    let mut control = Control::listen(&path).unwrap();
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

/// Answers whoever asks until the thread has its answer.
fn serve_until<T>(
    control: &mut Control,
    asking: std::thread::JoinHandle<T>,
    answer: impl Fn(Order) -> Reply,
) -> T {
    while !asking.is_finished() {
        poll_a_while(control);
        control.serve(T0, &answer);
    }
    asking.join().unwrap()
}

fn poll_a_while(control: &Control) {
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
    let mut control = Control::listen(&path).unwrap();
    for size in [0, 1, LONGEST_PART - 15, LONGEST_PART, 300_000, 5_000_000] {
        let long = "x".repeat(size);
        let asking = std::thread::spawn({
            let path = path.clone();
            move || ask(&path, &any(Request::Status), SOON)
        });
        let reply = serve_until(&mut control, asking, |_| Reply::Refused(long.clone()));
        assert_eq!(reply.unwrap(), Some(Reply::Refused(long.clone())), "{size}");
    }
    // Who asks and does not read loses his place, and what is kept for him is let go.
    let silent = client(&path);
    silent.send(b"\"status\"").unwrap();
    control.serve(T0, |_| Reply::Refused("x".repeat(5_000_000)));
    control.serve(T0, |_| unreachable!("it was answered"));
    assert_eq!(control.next_deadline(), Some(T0 + PATIENCE));
    control.serve(T0 + PATIENCE, |_| unreachable!("it was answered"));
    assert_eq!(control.next_deadline(), None);
}

/// Who was told that the daemon does not answer is not obeyed when it goes on.
#[test]
fn who_has_gone_is_not_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let mut control = Control::listen(&path).unwrap();
    ask(&path, &any(Request::Clear), Duration::from_millis(50)).unwrap_err();
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
        let control = Control::listen(&path).unwrap();
        let crowd: Vec<_> = (0..crowd).map(|_| connect_or_not(&path)).collect();
        let asked = std::time::Instant::now();
        let error = ask(&path, &any(Request::Clear), patience).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("stopped or hangs"), "{error}");
        assert!(asked.elapsed() >= patience);
        // Nor does a second daemon.
        let second = Control::listen(&path).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop((crowd, control));
    }
}

/// Of daemons that start together one has the socket, and keeps it.
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
                std::thread::spawn(move || Control::listen(&path))
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
fn a_file_is_known_by_all_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("a.toml"), dir.path().join("b.toml"));
    fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let same = |one: &Path, other: &Path| names(one).iter().any(|n| names(other).contains(n));
    assert!(same(&file, &link) && same(&link, &link) && same(&file, &file));
    let other = dir.path().join("c.toml");
    assert!(!same(&other, &link) && same(&other, &other));
}

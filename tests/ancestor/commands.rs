//! Commands, from the knock to the line in the log, and stop commands that outlive the daemon.

use std::time::Duration;

use crate::support::{CLIENT, Lab, SERVER, SOON, ip};

#[test]
fn lines_of_a_door_that_opens_and_closes_are_word_for_word() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let text = "[a]\nsequence = 3401,5520:udp\nstart_command = echo to %IP%; exit 3\n\
                cmd_timeout = 1\nstop_command = exit 4\n";
    let daemon = lab.start_ours(&lab.write("a.conf", text));
    lab.knock("192.0.2.1 3401 5520:udp");
    daemon.wait_for("status code (4)");
    let mut lines = daemon.logged();
    lines.retain(|line| !line.contains("warning") && !line.contains("help:"));
    let said = |wanted: &str| lines.iter().position(|line| line == wanted);
    // What is printed and how a start ends is told as it comes.
    let order = [
        "starting up, listening on eth0",
        "192.0.2.77: a: Stage 1",
        "192.0.2.77: a: Stage 2",
        "192.0.2.77: a: OPEN SESAME",
        "a: running command: echo to 192.0.2.77; exit 3",
        "192.0.2.77: a: to 192.0.2.77",
        "a: command returned non-zero status code (3)",
        "192.0.2.77: a: command timeout",
        "a: running command: exit 4",
        "a: command returned non-zero status code (4)",
    ];
    let places: Vec<_> = order.iter().map(|line| said(line)).collect();
    assert!(
        places.is_sorted() && places[0].is_some(),
        "{places:?}\n{lines:#?}"
    );
}

/// Run so by knock 0.8 too, but that its log has one name for both.
#[test]
fn two_doors_of_one_name_both_open_and_a_stop_may_come_at_once() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let text = "[a]\nsequence = 3401,5520\nstart_command = echo first\ncmd_timeout = 0\n\
                stop_command = echo stop\n\
                [a]\nsequence = 4401,6520\nstart_command = echo second\n";
    let daemon = lab.start_ours(&lab.write("a.conf", text));
    lab.knock("192.0.2.1 3401 5520");
    for line in [
        "192.0.2.77: a: first",
        "192.0.2.77: a: command timeout",
        "192.0.2.77: a: stop",
    ] {
        daemon.wait_for(line);
    }
    lab.knock("192.0.2.1 4401 6520");
    daemon.wait_for("192.0.2.77: a-2: OPEN SESAME");
    daemon.wait_for("192.0.2.77: a-2: second");
    assert_eq!(daemon.count("a: OPEN SESAME"), 1);
}

#[test]
fn the_address_and_the_ipv6_variant_of_a_command_are_used() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let ran = lab.directory().join("ran").display().to_string();
    let text = format!(
        "[fall]\nsequence = 3401:udp\ncommand = echo fall %IP% '%IP%' >>{ran}\n\
         [own]\nsequence = 3501:udp\ncommand = echo own4 >>{ran}\ncommand_6 = echo own6 %IP% >>{ran}\n\
         [none]\nsequence = 3601:udp\nstart_command = echo none >>{ran}\nstart_command_6 =\n\
         stop_command = echo stopped %IP% >>{ran}\ncmd_timeout = 1\n"
    );
    let daemon = lab.start_ours(&lab.write("a.conf", &text));
    lab.knock("-u 2001:db8::1 3401 3501 3601");
    daemon.wait_for("2001:db8::77: none: OPEN SESAME");
    lab.knock("-u 192.0.2.1 3501 3601");
    lab.wait_for_written(
        "ran",
        &[
            "fall 2001:db8::77 2001:db8::77",
            "own6 2001:db8::77",
            "own4",
            "none",
            "stopped 192.0.2.77",
        ],
    );
}

/// A door whose stop is so many seconds off, at this port.
fn door(lab: &Lab, name: &str, port: u16, timeout: u32) -> String {
    let ran = lab.directory().join("ran").display().to_string();
    format!(
        "[{name}]\nsequence = {port}:udp\nstart_command = echo {name} start >>{ran}\n\
         cmd_timeout = {timeout}\nstop_command = echo {name} stop %IP% >>{ran}\n"
    )
}

#[test]
fn a_knock_at_an_open_door_extends_it() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let configuration = lab.write("a.conf", &door(&lab, "a", 3401, 2));
    let daemon = lab.start_ours(&configuration);
    lab.knock("192.0.2.1 3401:udp");
    lab.wait_for_written("ran", &["a start"]);
    lab.knock("192.0.2.1 3401:udp");
    daemon.wait_for("192.0.2.77: a: stop command put off for 2s");
    lab.wait_for_written("ran", &["a start", "a stop 192.0.2.77"]);
    daemon.wait_for("a: command timeout");
    // Shut: the next one starts it again.
    lab.knock("192.0.2.1 3401:udp");
    daemon.wait_for_count("a: running command: echo a start", 2);
}

#[test]
fn stops_outlive_kill_9_and_are_run_at_a_clean_stop() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let doors = door(&lab, "soon", 3401, 1) + &door(&lab, "later", 3501, 600);
    let configuration = lab.write("a.conf", &doors);
    let daemon = lab.start_ours(&configuration);
    lab.knock("-u 192.0.2.1 3401 3501");
    lab.wait_for_written("ran", &["soon start", "later start"]);
    daemon.wait_for("later: OPEN SESAME");
    daemon.kill();
    // The first becomes overdue while nobody is there.
    std::thread::sleep(Duration::from_millis(1200));
    let daemon = lab.start_ours(&configuration);
    daemon.wait_for("2 stop commands are pending, 1 of them overdue");
    let after_restart = ["soon start", "later start", "soon stop 192.0.2.77"];
    lab.wait_for_written("ran", &after_restart);
    // Rereading the file leaves the other alone; the clean stop runs it.
    daemon.reload();
    assert_eq!(lab.written("ran").len(), 3);
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
    lab.wait_for_written(
        "ran",
        &[&after_restart[..], &["later stop 192.0.2.77"]].concat(),
    );
    // And once only: there is none left.
    let told = lab.written("ours.log").len();
    let daemon = lab.start_ours(&configuration);
    lab.knock("-u 192.0.2.1 3501");
    daemon.wait_for("later: OPEN SESAME");
    let since = daemon.logged().split_off(told);
    assert!(
        !since.iter().any(|l| l.contains("are pending")),
        "{since:#?}"
    );
}

/// `-l` with a name server that is silent at first: the door acts all the same, and the
/// line follows, with the name once it is there.
#[test]
fn a_look_up_holds_up_no_packet() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let server = lab.client.udp(ip(CLIENT[0]), 53);
    lab.write("resolv.conf", &format!("nameserver {}\n", CLIENT[0]));
    let ran = lab.directory().join("ran").display().to_string();
    let text = format!("[a]\nsequence = 3401:udp\ncommand = echo %IP% >>{ran}\n");
    let configuration = lab.write("a.conf", &text);
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec \"$@\"",
        lab.directory().join("resolv.conf").display()
    );
    let mut command = lab.ours_by("unshare".as_ref(), &configuration, |command| {
        command.args(["--mount", "sh", "-c", &script, "sh", crate::daemon::OURS]);
    });
    command.arg("-l");
    let daemon = lab.start(&mut command);
    lab.knock("192.0.2.1 3401:udp");
    let mut query = [0; 512];
    let (length, from) = server.recv_from(&mut query).expect("a question");
    lab.wait_for_written("ran", &["192.0.2.77"]);
    lab.sender().hit(
        ip(crate::support::OTHER[0]),
        ip(SERVER[0]),
        3401,
        crate::packets::Kind::Udp,
    );
    lab.wait_for_written("ran", &["192.0.2.77", "192.0.2.78"]);
    assert_eq!(daemon.count("OPEN SESAME"), 0, "it waits for the name");
    server
        .send_to(&answer(&query[..length]), from)
        .expect("sent");
    daemon.wait_for("192.0.2.77 (gw.example): a: OPEN SESAME");
    server.set_read_timeout(Some(SOON)).expect("a socket");
}

/// `PTR gw.example` for a question (RFC 1035, 4.1).
fn answer(query: &[u8]) -> Vec<u8> {
    let question_end = query.len();
    let mut answer = query[..question_end].to_vec();
    // A response, with no error; one question, one answer, nothing else.
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    // The question's name, PTR, IN, a minute, twelve bytes of name.
    answer.extend([0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 60, 0, 12]);
    answer.extend(b"\x02gw\x07example\x00");
    answer
}

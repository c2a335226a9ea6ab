//! The README's console blocks are run, top to bottom, on two hosts of a laboratory.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{CLIENT, Lab, Process, SERVER, SOON, ip};

/// A fenced block.
struct Block {
    language: String,
    lines: Vec<String>,
}

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(path).expect("README.md")
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(language), None) => {
                open = Some(Block {
                    language: language.to_owned(),
                    lines: Vec::new(),
                });
            }
            (None, Some(mut block)) => {
                block.lines.push(line.to_owned());
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    blocks
}

/// A command of a console block and the output that the README shows; none: any output will do.
struct Entry {
    prompt: String,
    command: String,
    output: Vec<String>,
}

fn entries(block: &Block) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in &block.lines {
        let prompted = ["$ ", "# ", "laptop$ "]
            .iter()
            .find_map(|prompt| Some((prompt, line.strip_prefix(prompt)?)));
        match (prompted, entries.last_mut()) {
            (Some((prompt, command)), _) => entries.push(Entry {
                prompt: prompt.trim().to_owned(),
                command: command.to_owned(),
                output: Vec::new(),
            }),
            (None, Some(entry)) => entry.output.push(line.clone()),
            (None, None) => panic!("a console block begins with a prompt: {line}"),
        }
    }
    entries
}

/// Returns a line without the time that is left (`27s`, `4s992ms`), which changes from run to run.
fn comparable(line: &str) -> String {
    line.split_inclusive([' ', '\t'])
        .map(|word| match word.trim_end().strip_suffix('s') {
            Some(time) if time.starts_with(|c: char| c.is_ascii_digit()) => "TIME ",
            Some(_) | None => word,
        })
        .collect()
}

const KNOCKD: &str = env!("CARGO_BIN_EXE_knockd");

struct Walk {
    /// It ends before its laboratory: fields are dropped in their order.
    daemon: Option<Process>,
    lab: Lab,
    configuration: PathBuf,
}

impl Walk {
    fn new() -> Self {
        let lab = Lab::new();
        let toml = blocks(&readme())
            .into_iter()
            .find(|block| block.language == "toml")
            .expect("a configuration");
        let configuration = lab.write("knockd.toml", &toml.lines.join("\n"));
        Self {
            daemon: None,
            lab,
            configuration,
        }
    }

    /// Returns the arguments, with the names that they have in the laboratory.
    fn arguments(&self, words: &str) -> Vec<String> {
        let words = words.replace("server.example.org", SERVER[0]);
        let words = words.split_whitespace();
        words
            .filter(|word| *word != "-c" && *word != "/etc/knockd.toml")
            .map(str::to_owned)
            .collect()
    }

    /// Adds the options that place the files of a `knockd` in the laboratory.
    fn placed(&self, command: &mut Command) {
        let directory = self.lab.directory();
        command.arg("-c").arg(&self.configuration);
        command.arg("--state-dir").arg(directory.join("state"));
        command.arg("--run-dir").arg(directory.join("run"));
    }

    /// Starts the daemon of the README. It listens when this returns.
    fn start(&mut self, arguments: &[String]) {
        let mut command = self.lab.server.command(KNOCKD);
        self.placed(command.args(arguments).arg("-v"));
        let mut daemon = Process::start(&mut command);
        daemon.wait_for_line("listening on");
        self.daemon = Some(daemon);
    }

    fn run(&mut self, entry: &Entry) {
        let (program, arguments) = entry.command.split_once(' ').expect("arguments");
        let arguments = self.arguments(arguments);
        let mut command = match (entry.prompt.as_str(), program) {
            ("#", "knockd") if arguments.is_empty() => return self.start(&arguments),
            ("#", "knockd") => {
                let mut command = self.lab.server.command(KNOCKD);
                self.placed(command.args(&arguments));
                command
            }
            // As whoever runs the test, outside of every namespace made here.
            ("$", "knockd") => {
                let mut command = Command::new(KNOCKD);
                self.placed(command.args(&arguments));
                command
            }
            ("laptop$", "knock") => self.lab.client.command(env!("CARGO_BIN_EXE_knock")),
            ("laptop$", "ssh") => {
                let to = (ip(SERVER[0]), 22);
                let reach = self.lab.client.connect(ip(CLIENT[0]), to, SOON);
                drop(reach.expect_connected());
                return;
            }
            ("#", "nft") => self.lab.server.command("nft"),
            (prompt, program) => panic!("how is `{prompt} {program}` to be run here?"),
        };
        if program != "knockd" {
            command.args(&arguments);
        }
        let output = command.output().expect("the command of the README");
        assert!(output.status.success(), "{}: {output:?}", entry.command);
        if !entry.output.is_empty() {
            let printed = String::from_utf8_lossy(&output.stdout);
            let printed: Vec<_> = printed.lines().map(comparable).collect();
            let promised: Vec<_> = entry.output.iter().map(|line| comparable(line)).collect();
            assert_eq!(printed, promised, "{}", entry.command);
        }
    }
}

#[test]
fn its_commands_do_what_it_says() {
    needs!(Laboratory);
    let mut walk = Walk::new();
    let _echo = walk.lab.server.echo(22);
    let text = readme();
    let blocks = blocks(&text);
    let console: Vec<_> = blocks
        .iter()
        .filter(|block| block.language == "console")
        .collect();
    assert!(console.len() >= 4, "a README without commands");
    for entry in console.into_iter().flat_map(entries) {
        walk.run(&entry);
    }
    assert!(walk.daemon.is_some(), "it starts the daemon");
    let left = walk.lab.server.run("nft list tables");
    assert_eq!(left, "", "nothing is left of it");
}

#[test]
fn what_it_points_to_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = readme();
    let links = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let scripts = blocks(&text)
        .into_iter()
        .filter(|block| block.language == "sh");
    let scripts: Vec<_> = scripts.flat_map(|block| block.lines).collect();
    let scripts = scripts.iter().filter(|line| line.starts_with("contrib/"));
    let programs = scripts.filter_map(|line| line.split_whitespace().next());
    let mut seen = 0;
    for target in links.chain(programs) {
        assert!(root.join(target).exists(), "{target}");
        seen += 1;
    }
    assert!(seen > 3, "no links found");
}

/// The rows of the table that contrib/bench.sh writes, in a page that has it.
fn bench_rows(page: &str) -> Vec<&str> {
    let marked = page.split("<!-- contrib/bench.sh -->\n").nth(1);
    let table = marked.and_then(|behind| behind.split("<!-- end -->").next());
    let lines = table.expect("the marks of contrib/bench.sh").lines();
    lines.filter(|line| line.starts_with('|')).collect()
}

#[test]
fn its_figures_are_those_of_the_whole_table() {
    let scale = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/SCALE.md");
    let scale = std::fs::read_to_string(scale).expect("contrib/SCALE.md");
    let (text, all) = (readme(), bench_rows(&scale));
    let shown = bench_rows(&text);
    // Two lines are the head.
    assert!(shown.len() > 3 && all.len() > shown.len(), "no figures");
    for row in shown {
        assert!(all.contains(&row), "contrib/SCALE.md has not: {row}");
    }
}

/// The demonstration, with the programs that are being tested.
#[test]
fn its_demonstration_ends_well() {
    needs!(Laboratory);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = Path::new(KNOCKD).parent().expect("a directory");
    let output = Command::new(root.join("contrib/demo.sh"))
        .env("KNOCKD_PROGRAMS", programs)
        .output()
        .expect("bash");
    let story = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{story}\n{complaint}");
    assert!(story.contains("That is all."), "{story}\n{complaint}");
}

/// A demonstration that cannot succeed leaves nothing behind: it looks first for what it cannot
/// install.
#[test]
fn the_demonstration_installs_nothing_without_rust() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = tempfile::tempdir().expect("a directory");
    let path = |name: &str| programs.path().join(name);
    link_programs(programs.path(), &["bash", "dirname", "id"]);
    // No package is installed, and an attempt to install one leaves a trace.
    for name in ["dpkg-query", "apt-get", "sudo", "unshare"] {
        let trace = format!("echo {name} >>{}", path("ran").display());
        write_program(programs.path(), name, &trace);
    }
    let output = Command::new(path("bash"))
        .arg(root.join("contrib/demo.sh"))
        .env("PATH", programs.path())
        .env_remove("KNOCKD_PROGRAMS")
        .output()
        .expect("bash");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(complaint.contains("Rust is not here"), "{complaint}");
    let ran = std::fs::read_to_string(path("ran")).unwrap_or_default();
    assert_eq!(ran, "", "{complaint}");
}

/// Root may have no user namespaces (user.max_user_namespaces), and needs none.
#[test]
fn the_demonstration_makes_a_user_namespace_for_users_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (user, is_made) in [(0, false), (1000, true)] {
        let programs = tempfile::tempdir().expect("a directory");
        let path = |name: &str| programs.path().join(name);
        link_programs(programs.path(), &["bash", "dirname", "mktemp", "rm"]);
        write_program(programs.path(), "id", &format!("echo {user}"));
        let trace = format!("echo \"$@\" >{}", path("ran").display());
        write_program(programs.path(), "unshare", &trace);
        let output = Command::new(path("bash"))
            .arg(root.join("contrib/demo.sh"))
            .env("PATH", programs.path())
            .env("KNOCKD_PROGRAMS", "/nowhere")
            .output()
            .expect("bash");
        assert!(output.status.success(), "{output:?}");
        let words = std::fs::read_to_string(path("ran")).expect("it was run");
        assert!(words.contains("--net"), "{words}");
        assert_eq!(words.contains("--user"), is_made, "{user}: {words}");
    }
}

/// Puts these programs of the system into a directory.
fn link_programs(directory: &Path, names: &[&str]) {
    for name in names {
        let real = Command::new("sh")
            .args(["-c", &format!("command -v {name}")])
            .output();
        let real = String::from_utf8(real.expect("sh").stdout).expect("a path");
        std::os::unix::fs::symlink(real.trim(), directory.join(name)).expect("a link");
    }
}

/// Writes a script that stands for a program of this name. There must be a bash beside it.
fn write_program(directory: &Path, name: &str, script: &str) {
    let file = directory.join(name);
    let bash = directory.join("bash");
    std::fs::write(&file, format!("#!{}\n{script}\n", bash.display())).expect("written");
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(file, all).expect("a file of ours");
}

//! What a help says, done by a machine.

use knockd::config::Diagnostic;

use super::file::{File, between, key};

/// Steps and names that nobody has used yet.
#[derive(Debug, Default)]
pub(super) struct Chance(u16);

impl Chance {
    fn next(&mut self) -> u16 {
        self.0 += 1;
        self.0
    }

    pub(super) fn port(&mut self) -> u16 {
        11_500 + self.next()
    }

    pub(super) fn step(&mut self, file: &File) -> String {
        let port = self.port();
        match file.is_toml() {
            true => format!("\"{port}/tcp\""),
            false => port.to_string(),
        }
    }

    /// Three steps as the help wants them.
    pub(super) fn sequence(&mut self, file: &File) -> String {
        let n = self.next();
        let [a, b, c] = [21_300 + n * 11, 42_000 + n * 7, 9034 + n * 13];
        match file.is_toml() {
            true => format!("[\"{a}/tcp\", \"{b}/tcp\", \"{c}/udp\"]"),
            false => format!("{a},{b},{c}:udp"),
        }
    }
}

/// Returns the files that come of following a help, one for each way that it leaves; none: no machine can
/// follow it.
pub(super) fn follow(file: &File, at: &Diagnostic, chance: &mut Chance) -> Vec<File> {
    let help = at.help.as_deref().unwrap_or_default();
    let ways = [in_place, in_line, elsewhere];
    let all = ways.iter().map(|way| way(file, at, help, chance));
    all.flatten()
        .find(|files| !files.is_empty())
        .unwrap_or_default()
}

/// The helps that name what stands in the place of the fault.
fn in_place(file: &File, at: &Diagnostic, help: &str, chance: &mut Chance) -> Option<Vec<File>> {
    let put = |new: &str| Some(vec![file.put(at, new)]);
    if at.message.ends_with(": rename one") {
        return put(between(help, "[door.", "]")?);
    }
    for begin in [
        "put it in quotes: ",
        "put it in quotes, with its unit: ",
        "put it in brackets: ",
        "use the number: ",
    ] {
        if let Some(text) = help.strip_prefix(begin) {
            return put(text);
        }
    }
    if let Some(rest) = help.strip_prefix("write [") {
        return put(rest.split_once(']')?.0);
    }
    if let Some(path) = help.strip_prefix("write it in full, such as ") {
        return Some(vec![file.put_text(at, path)]);
    }
    if help == "write \"on\", or leave the key out" {
        return Some(vec![file.without_line(at.line - 1), file.put(at, "\"on\"")]);
    }
    if help.starts_with("write %IP%") {
        let [_, place, _] = file.parts(at);
        return put(&place.replace("%ip%", "%IP%"));
    }
    if help.starts_with("choose three steps") || help == "give doors first steps of their own" {
        return put(&chance.sequence(file));
    }
    for begin in ["let SYNs alone count", "knock(1) and other clients send"] {
        if let (true, Some(flags)) = (help.starts_with(begin), between(help, "`", "`")) {
            let [before, ..] = file.parts(at);
            return match before.trim_start() {
                "[" => Some(vec![file.inserted(at.line, &format!("tcpflags = {flags}"))]),
                _ => Some(vec![file.put_text(at, flags)]),
            };
        }
    }
    if help.starts_with("knock 0.8 has one name for both") {
        let (_, new) = at.message.split_once("this one is called `")?;
        return put(new.trim_end_matches('`'));
    }
    if let Some(rest) = help.strip_prefix("it comes of copying from a page: type ") {
        let [_, place, _] = file.parts(at);
        let shown = between(&at.message, "takes ", " (U+")?;
        let wrong = between(shown, "`", "`").unwrap_or("\u{a0}");
        let right = between(rest, "`", "`").unwrap_or(" ");
        let fixed = place.replacen(wrong, right, 1);
        let ends = |quotes: &str| rest.contains(&format!("between `{quotes}`"));
        return match ends("'''") && !place.starts_with("'''") {
            true => put(&format!("'''{}'''", fixed.trim_matches(['"', '\'']))),
            false => put(&fixed),
        };
    }
    if let Some((_, new)) = help.split_once("`max_open = ") {
        return put(new.trim_end_matches('`'));
    }
    if help.contains("start knockd with -i ") {
        return put(between(help, "-i ", " -i")?);
    }
    if let Some(text) = help.strip_prefix("write ") {
        let told = ["both", "it", "its", "in"]
            .iter()
            .any(|w| text.split(' ').next() == Some(w));
        return (!told).then(|| text.split(" or ").map(|new| file.put(at, new)).collect());
    }
    for (begin, end) in [("did you mean `", "`?"), ("did you mean \"", "\"?")] {
        if let Some(word) = between(help, begin, end) {
            return put(&match begin.ends_with('"') {
                true => format!("\"{word}\""),
                false => word.to_owned(),
            });
        }
    }
    if let Some(rest) = help.strip_prefix("such as ") {
        let whole = rest.split([';']).next()?;
        let all = match whole.starts_with('"') {
            true => whole
                .split([','])
                .flat_map(|part| part.split(" or "))
                .collect(),
            false => vec![whole],
        };
        return Some(all.iter().map(|new| file.put(at, new.trim())).collect());
    }
    None
}

/// The helps that change the line.
fn in_line(file: &File, at: &Diagnostic, help: &str, _: &mut Chance) -> Option<Vec<File>> {
    let index = at.line.checked_sub(1)?;
    let lines = file.lines();
    let line = &lines[index];
    let one = |file: File| Some(vec![file]);
    if help == "a comment has a line of its own" {
        let (left, comment) = line.split_once('#')?;
        return one(file
            .with_line(index, left.trim_end())
            .inserted(index, &format!("#{comment}")));
    }
    if help.starts_with("a directive is one line") {
        let first = if help.contains("before this one") {
            index - 1
        } else {
            index
        };
        let begin = lines[first].trim_end().strip_suffix('\\')?;
        let joined = format!("{begin}{}", lines[first + 1].trim());
        return one(file.without_line(first + 1).with_line(first, &joined));
    }
    if help == "it stands alone on its line" {
        return one(file.with_line(index, key(line)));
    }
    if help.starts_with("name one, such as") {
        let new = between(help, "such as ", ",")?;
        let named = file.put(at, &format!("[{new}]"));
        return Some(vec![named, file.without_line(index)]);
    }
    if help.starts_with("leave one of them out")
        || (help.starts_with("leave `") && help.contains("` out"))
        || help.starts_with("take it out")
        || help == "here it is a flag: knockd -p FILE"
    {
        return one(file.without_line(index));
    }
    if help.ends_with("let the set have addresses alone") {
        let [before, _, after] = file.parts(at);
        let (left, _) = before.rsplit_once(", ports")?;
        return one(file.with_line(index, &format!("{left}{after}")));
    }
    if help.ends_with("save the file as UTF-8") {
        return one(file.put(at, "e"));
    }
    None
}

/// The helps that send a line to another place, or add one.
fn elsewhere(file: &File, at: &Diagnostic, help: &str, chance: &mut Chance) -> Option<Vec<File>> {
    let one = |file: File| Some(vec![file]);
    if help.starts_with("give it a name that ends in `.toml`") {
        return one(File::new("input.toml", &*file.text));
    }
    let index = at.line.checked_sub(1)?;
    let line = file.lines()[index].clone();
    let moved = help.starts_with("it belongs ");
    let (rest, line) = match moved {
        true => file.taken_out(at),
        false => (file.without_line(index), line),
    };
    let line = match help.rsplit_once(", as `") {
        Some((_, new)) => line.replacen(key(&line), new.trim_end_matches('`'), 1),
        None => line,
    };
    let equals = if file.is_toml() { "\"" } else { "" };
    if help.starts_with("it belongs at the top") {
        return one(rest.clone().inserted(0, &line));
    }
    if help.starts_with("it belongs under the header of a door") {
        let mut file = rest.clone();
        for (header, end) in file.sections() {
            let lines = file.lines();
            let is_door = match file.is_toml() {
                true => lines[header].contains("door"),
                false => !lines[header].contains("options"),
            };
            let has = lines[header..end]
                .iter()
                .any(|l| key(l).eq_ignore_ascii_case(key(&line)));
            if is_door && !has {
                file = file.inserted(header + 1, &line);
                return one(file);
            }
        }
        let header = between(help, "`", "`")?;
        return one(file.under(header, &line));
    }
    if help.starts_with("it belongs under `") {
        return one(rest.clone().under(between(help, "`", "`")?, &line));
    }
    if help.starts_with("it belongs into `log`") || help.starts_with("here it is log = {") {
        let whole = match help.strip_prefix("here it is ") {
            Some(whole) => whole.to_owned(),
            None => format!("log = {{ {} }}", line.trim()),
        };
        let has = file.lines().iter().any(|line| line.trim() == "[log]");
        let inner = between(&whole, "{ ", " }")?;
        return one(match has {
            true => rest.clone().under("[log]", inner),
            false => rest.clone().inserted(0, &whole),
        });
    }
    if help.starts_with("begin with `[options]`") {
        let name = chance.port();
        let new = [format!("[name-{name}]"), "[options]".to_owned()];
        return Some(new.iter().map(|new| file.inserted(index, new)).collect());
    }
    if help.starts_with("begin it with `[door.NAME]`") {
        let header = format!("[door.NAME-{}]", chance.port());
        // Its header may lack the name.
        let sections = file.sections();
        let own = sections
            .iter()
            .find(|(begin, end)| (*begin..*end).contains(&index));
        if let Some((own, _)) = own.filter(|(own, _)| file.lines()[*own].trim() == "[door]") {
            return one(file.with_line(*own, &header));
        }
        let [before, ..] = file.parts(at);
        return one(match before.trim() {
            "[" => file.with_line(index, &header),
            _ => rest.clone().under(&header, &line),
        });
    }
    if help == "put all its keys under one header" {
        let (header, end) = *file
            .sections()
            .iter()
            .find(|(header, _)| *header == index)?;
        let mut lines = file.lines();
        let moved: Vec<String> = lines.drain(header..end).skip(1).collect();
        let first = lines.iter().position(|l| l.trim() == line.trim())? + 1;
        lines.splice(first..first, moved);
        return one(file.of_lines(&lines));
    }
    if help.starts_with("give it a `sequence`") {
        let steps = format!("sequence = {}", chance.sequence(file));
        let name = "/var/lib/knockd/its.seq";
        let listed = format!("one_time_sequences = {equals}{name}{equals}");
        return Some(
            [listed, steps]
                .map(|new| file.inserted(at.line, &new))
                .into(),
        );
    }
    if help.starts_with("give it an `open`") {
        let set = "{ table = \"inet filter\", set = \"knocked\" }";
        let ways = match file.is_toml() {
            true => vec![
                format!("add = {set}"),
                format!("remove = {set}"),
                "start_command = \"true\"".to_owned(),
                "close = [\"22/tcp\"]".to_owned(),
                "open = [\"22/tcp\"]".to_owned(),
            ],
            false => vec!["command = true".to_owned()],
        };
        return Some(ways.iter().map(|new| file.inserted(at.line, new)).collect());
    }
    if help.ends_with("choose another step") {
        let step = between(&at.message, "`", "`")?;
        let (old, new) = (format!("\"{step}\""), chance.step(file));
        let lines = file.lines();
        let changed = lines.iter().map(|line| match key(line) {
            "sequence" => line.replace(&old, &new),
            _ => line.clone(),
        });
        return one(file.of_lines(&changed.collect::<Vec<_>>()));
    }
    if let Some((_, new)) = help.split_once("a port is guarded by a door that names it: ") {
        let door = file.lines().into_iter().find(|l| l.starts_with("[door."));
        return one(file.under(&door.unwrap_or("[door.NAME]".into()), new));
    }
    if let Some(header) = help.strip_prefix("write its keys under ") {
        return one(rest.clone().under(header.trim_matches('`'), ""));
    }
    if help.starts_with("what was not started is not stopped; `true`") {
        return one(file.inserted(index, &format!("start_command = {equals}true{equals}")));
    }
    None
}

//! Which commands run a program of JavaScript that knows Node's channel, and which keep it to themselves.
//! By names alone, so that users can foresee it. Pure.

use super::script;

/// What a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runs {
    /// Node or Deno: the program finds its channel.
    Node,
    /// Bun: its channel speaks otherwise.
    Bun,
    /// A program of Node that starts the real one as a process of its own, and keeps the channel from
    /// it; what it is called, for people.
    Wrapper(String),
}

/// Programs that start others; all of them are Node's.
const WRAPPERS: [&str; 10] =
    ["npm", "npx", "pnpm", "pnpx", "yarn", "yarnpkg", "corepack", "nodemon", "tsx", "ts-node-dev"];

/// Options by which `node` runs the program in a process of its own, or runs another one.
const STARTS_ANOTHER: [&str; 3] = ["--watch", "--watch-path", "--run"];

/// Options by which `node` runs a text: it leaves the variables of its channel where they are, and
/// `cluster` fails by them.
const TEXT: [&str; 5] = ["-e", "--eval", "-p", "--print", "-pe"];

/// What the program of this path runs with these arguments, of which the first is its name; `head` is the
/// beginning of its file.
#[must_use]
pub fn runs(path: &[u8], arguments: &[Vec<u8>], head: &[u8]) -> Option<Runs> {
    let arguments: Vec<&str> =
        arguments.iter().skip(1).map(|word| str::from_utf8(word).unwrap_or_default()).collect();
    let name = base(str::from_utf8(path).ok()?);
    if name == "env" {
        let at = arguments.iter().position(|word| is_program(word))?;
        return named(base(arguments[at]), arguments.get(at + 1..).unwrap_or_default());
    }
    if let Some((interpreter, argument)) = script::command(head) {
        let interpreter = base(str::from_utf8(interpreter).ok()?);
        // What follows is the kernel's one argument, of which `env -S` makes several.
        let argument = argument.and_then(|words| str::from_utf8(words).ok()).unwrap_or_default();
        let words: Vec<&str> = argument.split_ascii_whitespace().collect();
        let runs = if interpreter == "env" {
            let at = words.iter().position(|word| is_program(word))?;
            let words: Vec<&str> = words.iter().copied().chain(["script"]).collect();
            named(base(words[at]), words.get(at + 1..).unwrap_or_default())
        } else {
            let words: Vec<&str> = words.into_iter().chain(["script"]).collect();
            named(interpreter, &words)
        };
        return match runs {
            Some(Runs::Node) if WRAPPERS.contains(&name) => Some(Runs::Wrapper(name.to_owned())),
            runs => runs,
        };
    }
    named(name, &arguments)
}

fn named(name: &str, arguments: &[&str]) -> Option<Runs> {
    match name {
        "node" | "nodejs" => {
            let is_option = |word: &&str| word.starts_with('-');
            let options = arguments.iter().copied().take_while(is_option);
            let options = options.map(|word| word.split('=').next().unwrap_or_default());
            let options: Vec<&str> = options.collect();
            let another = options.iter().find(|option| STARTS_ANOTHER.contains(option));
            let is_text = options.iter().any(|option| TEXT.contains(option));
            match another {
                Some(option) => Some(Runs::Wrapper(format!("{name} {option}"))),
                None if is_text || !arguments.iter().any(|word| !is_option(word)) => None,
                None => Some(Runs::Node),
            }
        }
        "deno" => Some(Runs::Node),
        "bun" => Some(Runs::Bun),
        name if WRAPPERS.contains(&name) => Some(Runs::Wrapper(name.to_owned())),
        _ => None,
    }
}

/// Whether a word after `env` is the program, and no option or variable.
fn is_program(word: &str) -> bool {
    !word.starts_with('-') && !word.contains('=')
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str, head: &str) -> Option<Runs> {
        let words: Vec<Vec<u8>> = words.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        runs(&words[0], &words, head.as_bytes())
    }

    #[track_caller]
    fn wraps(words: &str, head: &str, name: &str) {
        assert_eq!(of(words, head), Some(Runs::Wrapper(name.to_owned())));
    }

    #[test]
    fn a_program_of_node_is_known_by_its_name() {
        for words in [
            "node app.js",
            "/usr/bin/node --require x app.js",
            "nodejs app.js --watch",
            "deno run -A app.ts",
            "/usr/bin/env node app.js",
            "env A=b -i node app.js",
        ] {
            assert_eq!(of(words, "\x7fELF"), Some(Runs::Node), "{words}");
        }
        for head in
            ["#!/usr/bin/env node\n", "#!/usr/bin/node --enable\n", "#!/usr/bin/env -S node -x"]
        {
            assert_eq!(of("./app.js", head), Some(Runs::Node), "{head}");
        }
        assert_eq!(of("bun app.js", ""), Some(Runs::Bun));
    }

    #[test]
    fn what_starts_another_is_told_from_it() {
        wraps("/usr/bin/npm start", "#!/usr/bin/env node\n", "npm");
        wraps("npx app", "#!/usr/bin/env node\n", "npx");
        wraps("env npm start", "", "npm");
        wraps("pnpm start", "\x7fELF", "pnpm");
        wraps("node --watch app.js", "", "node --watch");
        wraps("node --watch-path=src app.js", "", "node --watch-path");
        wraps("./app.js", "#!/usr/bin/env -S node --watch\n", "node --watch");
    }

    #[test]
    fn others_are_not_looked_into() {
        for words in [
            "node -e x",
            "node --eval=x",
            "node -p x",
            "node",
            "node -",
            "./server",
            "python3 app.py",
            "sh -c node",
            "node-server",
            "env",
            "env -i",
        ] {
            assert_eq!(of(words, "\x7fELF"), None, "{words}");
        }
        assert_eq!(of("./start.sh", "#!/bin/sh\nexec node app.js\n"), None);
        assert_eq!(runs(b"/bin/\xff", &[b"\xff".to_vec()], b""), None);
    }
}

//! Imports go down only.

use std::{fs, path::Path};

/// The floors of `src`, from the ground up; modules of one floor do not know each other.
const FLOORS: [&[&str]; 10] = [
    &["cache", "ids", "clock", "client", "config", "page", "rates", "telemetry", "text"],
    &["admission", "db", "read_time"],
    &["bus"],
    &["accounts", "drops"],
    &["feed"],
    &["stock"],
    &["app"],
    &["graphql"],
    &["http"],
    &["cli"],
];

/// On the ground, who may know whom of the neighbours.
const NEIGHBOURS: [(&str, &str); 4] =
    [("page", "clock"), ("page", "ids"), ("rates", "cache"), ("telemetry", "config")];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

#[test]
fn no_module_imports_from_its_own_floor_or_above() {
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    assert!(files.len() > 40);
    let mut climbs = Vec::new();
    for (path, text) in &files {
        let Some(module) = module_of(path) else { continue };
        let own = floor(&module).unwrap_or_else(|| panic!("{path}: the module {module} is on no floor"));
        for import in imports(text) {
            let other = floor(&import).unwrap_or_else(|| panic!("{path}: crate::{import} is on no floor"));
            let neighbours = NEIGHBOURS.contains(&(module.as_str(), import.as_str()));
            if import != module && other >= own && !neighbours {
                climbs.push(format!("{path}: {module} (floor {own}) uses {import} (floor {other})"));
            }
        }
        if module == "graphql" && (text.contains("use diesel") || text.contains("diesel::")) {
            climbs.push(format!("{path}: diesel in graphql"));
        }
    }
    assert!(climbs.is_empty(), "{}", climbs.join("\n"));
}

#[test]
fn an_import_that_climbs_is_noticed() {
    let text = "use crate::{\n    clock::Timestamp,\n    graphql::{ApiError, drop::X},\n    stock,\n};\nlet x = crate::http::serve();";
    let mut found = imports(text);
    found.sort();
    assert_eq!(found, ["clock", "graphql", "http", "stock"]);
}

fn module_of(path: &str) -> Option<String> {
    let inside = path.strip_prefix("src/")?;
    let module = inside.split('/').next()?.trim_end_matches(".rs");
    (!matches!(module, "lib" | "main")).then(|| module.to_owned())
}

/// The modules of this crate that a file names, in `use` trees and in paths.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` in a macro is a path like any other.
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => {
                found.push(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned())
            }
            Some(tree) => found.extend(top_names(tree)),
        }
    }
    found
}

/// The first names of a `use` tree, up to the brace that closes it.
fn top_names(tree: &str) -> Vec<String> {
    let (mut depth, mut name, mut names, mut fresh) = (0, String::new(), Vec::new(), true);
    for c in tree.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(std::mem::take(&mut name));
                fresh = true;
            }
            c if depth == 0 && fresh && (c.is_alphanumeric() || c == '_') => name.push(c),
            c if depth == 0 && !c.is_whitespace() => fresh = false,
            _ => {}
        }
    }
    names.push(name);
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

fn collect(dir: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

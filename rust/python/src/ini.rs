//! Cuts an INI file into its sections, as Python's configparser would: so that it need parse only those that somebody asks for.

use std::collections::HashSet;

use pyo3::prelude::*;

/// Keys of one section that are compared with each other.
const MOST_KEYS: usize = 64;

/// Name, first byte, byte behind the last, and whether only configparser can tell if it holds.
type Section<'a> = (&'a str, usize, usize, bool);

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(cut_ini, module)?)
}

#[pyfunction]
#[pyo3(signature = (data, /))]
fn cut_ini(data: &[u8]) -> Option<Vec<Section<'_>>> {
    cut(std::str::from_utf8(data).ok()?)
}

/// `None` where a line alone does not tell what it is, or configparser would refuse the file.
fn cut(text: &str) -> Option<Vec<Section<'_>>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut names = HashSet::new();
    let mut keys: Vec<&str> = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let (at, end) = (start, start + line.len());
        start = end;
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.chars().any(is_odd) {
            return None;
        }
        let trimmed = line.trim_matches([' ', '\t']);
        if let Some((.., last, _)) = sections.last_mut() {
            *last = end;
        }
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            let (.., doubtful) = sections.last_mut()?;
            if trimmed.starts_with('[') {
                return None;
            }
            // The first lines of a section may be settings, however they are indented; others belong to the value before.
            *doubtful |= keys.is_empty() || !trimmed.contains('=');
        } else if let Some(header) = line.strip_prefix('[') {
            let name = header.trim_end_matches([' ', '\t']).strip_suffix(']')?;
            if name.is_empty() || name.contains(']') || name == "DEFAULT" || !names.insert(name) {
                return None;
            }
            keys.clear();
            if let Some((.., last, _)) = sections.last_mut() {
                *last = at;
            }
            sections.push((name, at, end, false));
        } else {
            let (.., doubtful) = sections.last_mut()?;
            let key = line.split_once(['=', ':'])?.0.trim_end_matches([' ', '\t']);
            if key.is_empty() {
                return None;
            }
            *doubtful |= keys.len() > MOST_KEYS || !key.is_ascii() || keys.iter().any(|known| known.eq_ignore_ascii_case(key));
            keys.push(key);
        }
    }
    Some(sections)
}

/// Ends a line, or is blank, for Python alone.
fn is_odd(letter: char) -> bool {
    match letter {
        '\t' | ' '..='~' => false,
        _ => letter.is_control() || letter.is_whitespace() || letter == '\u{feff}',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_cut_at_their_headers() {
        let text = "# c\n[default]\nregion = x\n\n[profile a]\r\ns3 =\r\n  addressing_style = path\r\n[b] \na: 1";
        let found: Vec<_> =
            cut(text).unwrap().into_iter().map(|(name, start, end, doubtful)| (name, &text[start..end], doubtful)).collect();
        assert_eq!(
            found,
            [
                ("default", "[default]\nregion = x\n\n", false),
                ("profile a", "[profile a]\r\ns3 =\r\n  addressing_style = path\r\n", false),
                ("b", "[b] \na: 1", false),
            ]
        );
    }

    #[test]
    fn what_only_configparser_can_tell_is_left_to_it() {
        for odd in [
            "a = 1\n",
            "[a\n",
            "[]\n",
            "[a] b\n",
            "[a]\n[a]\n",
            "[DEFAULT]\n",
            "[a]\nb\n",
            "[a]\n= b\n",
            "[a]\nb = 1\n [c]\n",
            "[a]\nb = 1\x0b\n",
            "[a]\rb = 1\n",
            "\u{feff}[a]\n",
            "[a]\nb\u{a0}= 1\n",
            "  # c\n  a = 1\n",
        ] {
            assert!(cut(odd).is_none(), "{odd:?}");
        }
        for doubtful in ["[a]\nb = 1\nB: 2\n", "[a]\nb = 1\n  more\n", "[a]\n  b = 1\n", "[a]\n\u{e9} = 1\n"] {
            assert_eq!(cut(doubtful).unwrap().first().map(|section| section.3), Some(true), "{doubtful:?}");
        }
    }
}

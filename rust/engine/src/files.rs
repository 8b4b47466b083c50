//! Files that the settings name: regular ones, read to a bound.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Bytes of the longest file: a table of all that AWS has takes a tenth of it.
const MOST: u64 = 64 << 20;

/// Its content. A pipe is not waited for.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    read_to(path, MOST)
}

fn read_to(path: &Path, most: u64) -> Result<Vec<u8>> {
    let found = std::fs::metadata(path)?;
    if !found.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    // Room from the start: of a key that grows, pieces would stay behind.
    let mut content = Vec::with_capacity(found.len().min(most) as usize + 1);
    File::open(path)?.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than {} MiB", most >> 20)));
    }
    Ok(content)
}

/// Whether bodies can be spooled there; `None`: in the system's directory for temporary files.
pub(crate) fn check_spool(directory: Option<&Path>) -> Result<()> {
    directory.map_or_else(tempfile::tempfile, tempfile::tempfile_in).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [0; 10]).unwrap();
        assert_eq!(read_to(&path, 10).unwrap(), [0; 10]);
        assert_eq!(read_to(&path, 9).unwrap_err().kind(), ErrorKind::FileTooLarge);
        for other in ["/dev/zero".as_ref(), folder.path()] {
            assert_eq!(read(other).unwrap_err().to_string(), "it is not a regular file");
        }
        assert_eq!(read(&folder.path().join("away")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

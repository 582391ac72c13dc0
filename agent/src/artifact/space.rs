//! Whether a version fits on the disk.

use std::io;
use std::path::Path;

use handover_artifact::{Entry, Manifest};

/// A file takes whole blocks, and its entry in the directory some more; of most file systems a block is as large.
const BLOCK_BYTES: u64 = 4096;

/// Too little room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it needs {need_bytes} bytes ({keep_free_bytes} of them to stay free: `keep_free_bytes` in [artifact]), and only \
     {free_bytes} are free there, without the older versions beyond `keep`; make room, or lower `keep` and start the agent anew"
)]
pub struct NoSpace {
    /// What is needed.
    pub need_bytes: u64,
    /// How much of it is to stay free.
    pub keep_free_bytes: u64,
    /// What there is.
    pub free_bytes: u64,
}

/// Whether what the manifest lists fits into so much free space, and leaves so much of it free.
///
/// # Errors
/// [`NoSpace`], with the numbers.
pub fn fits(manifest: &Manifest, free_bytes: u64, keep_free_bytes: u64) -> Result<(), NoSpace> {
    let sizes = manifest.files.values().map(|entry| match entry {
        Entry::File { size_bytes, .. } => {
            size_bytes.div_ceil(BLOCK_BYTES).saturating_add(1).saturating_mul(BLOCK_BYTES)
        }
        Entry::Link { .. } => BLOCK_BYTES,
    });
    let need_bytes = sizes.fold(keep_free_bytes, u64::saturating_add);
    if need_bytes <= free_bytes { Ok(()) } else { Err(NoSpace { need_bytes, keep_free_bytes, free_bytes }) }
}

/// What is free for us on the file system of this directory.
///
/// # Errors
/// When the system does not tell.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let about = nix::sys::statvfs::statvfs(dir)?;
    Ok(about.blocks_available().saturating_mul(about.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_and_a_reserve_are_counted() {
        let file = Entry::File { sha256: String::new(), size_bytes: 1, executable: false };
        let files = [("a".parse().expect("a path"), file)].into();
        let manifest = Manifest::of("s".parse().expect("s"), "1".parse().expect("1"), String::new(), files);
        let keep_free_bytes = 1_000_000;
        let need_bytes = keep_free_bytes + 2 * BLOCK_BYTES;
        assert_eq!(fits(&manifest, need_bytes, keep_free_bytes), Ok(()));
        let free_bytes = need_bytes - 1;
        let refused = fits(&manifest, free_bytes, keep_free_bytes).expect_err("too little");
        assert_eq!(refused, NoSpace { need_bytes, keep_free_bytes, free_bytes });
        assert_eq!(fits(&manifest, free_bytes, keep_free_bytes - 1), Ok(()));
        assert!(refused.to_string().contains(&need_bytes.to_string()), "{refused}");
    }

    #[test]
    fn the_system_tells_what_is_free() {
        assert!(free_bytes(Path::new("/")).expect("told") > 0);
        assert!(free_bytes(Path::new("/no/such")).is_err());
    }
}

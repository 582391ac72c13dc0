//! A process that even SIGKILL does not end, because it hangs in the kernel: here in a write to a frozen file system.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stage::{Stage, eventually, stat};

/// A small file system of its own, mounted in the test's directory. Thawed and unmounted when dropped.
struct Frozen(PathBuf);

impl Frozen {
    /// None: this user may not, or the tools are missing.
    fn new(dir: &Path) -> Option<Self> {
        let (image, point) = (dir.join("image"), dir.join("frozen"));
        std::fs::create_dir(&point).expect("a mount point");
        std::fs::File::create(&image).and_then(|file| file.set_len(8 << 20)).expect("an image");
        let (image, at) = (image.to_str().expect("text"), point.to_str().expect("text"));
        (run("mkfs.ext4", &["-q", image]) && run("mount", &["-o", "loop", image, at])).then(|| Self(point))
    }

    fn freeze(&self) {
        assert!(run("fsfreeze", &["-f", self.0.to_str().expect("text")]));
    }

    fn thaw(&self) -> bool {
        run("fsfreeze", &["-u", self.0.to_str().expect("text")])
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
        run("umount", &["-l", self.0.to_str().unwrap_or_default()]);
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
}

#[tokio::test]
async fn what_hangs_in_the_kernel_is_reported_is_no_proof_and_ends_when_it_can() {
    let mut stage = Stage::new().await;
    let Some(frozen) = Frozen::new(stage.dir.path()) else {
        eprintln!("SKIPPED: no file system can be mounted here");
        return;
    };
    let instance =
        stage.start("mkfifo $D/pipe; (read line < $D/pipe; echo $line > $D/frozen/file) & echo $! > $D/child; wait");
    let child = stage.number("child").await;
    frozen.freeze();
    std::fs::write(stage.path("pipe"), "now\n").expect("a reader");
    eventually("it hangs in the kernel", || stat(child).is_some_and(|fields| fields[0] == "D")).await;

    stage.driver.kill(&instance).await.expect("killed");
    let exit = stage.exit().await;
    assert_eq!(exit.instance, instance);
    let left = exit.left.expect("something is left");
    assert!(left.contains(&child.to_string()) && left.contains("kernel"), "{left}");
    assert!(!exit.proven);
    stage.driver.kill(&instance).await.expect("it is still watched, and may be killed again");

    assert!(frozen.thaw());
    let exit = stage.exit().await;
    assert!(exit.left.is_none() && exit.proven, "now nothing is left: {exit:?}");
    assert!(stat(child).is_none());
}

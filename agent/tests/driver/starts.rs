//! Starting: what the process gets, and what is said when it cannot be started.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use handover_agent::driver::{DriverError, ExitStatus};

use crate::stage::{Stage, me, spec, stat};

#[tokio::test]
async fn an_instance_leads_its_group_runs_in_its_version_and_writes_to_the_output_file() {
    let mut stage = Stage::new().await;
    let instance = stage.start("pwd; echo to stderr >&2; cat; echo $$ > $D/pid; exec sleep 1000");
    let pid = stage.number("pid").await;
    let fields = stat(pid).expect("it runs");
    assert_eq!(fields[1..3], [me().to_string(), pid.to_string()], "parent and group");
    let output = fs::read_to_string(stage.path("output/a.log")).expect("output");
    let directory = stage.path("builds/1.0.0");
    assert_eq!(output, format!("{}\nto stderr\n", directory.display()), "and an empty stdin ends cat");
    assert!(stage.driver.resident_bytes(&instance).expect("a number") > 10_000);
    stage.driver.kill(&instance).await.expect("killed");
    assert_eq!(stage.exit().await.status, ExitStatus::Signal(9));
    assert_eq!(stage.driver.resident_bytes(&instance), None);
}

#[tokio::test]
async fn the_output_of_an_earlier_instance_is_kept() {
    let mut stage = Stage::new().await;
    for word in ["first", "second"] {
        stage.start(&format!("echo {word}"));
        assert_eq!(stage.exit().await.tail, [word], "the tail is the instance's own");
    }
    assert_eq!(fs::read_to_string(stage.path("output/a.log")).expect("output"), "first\nsecond\n");
}

fn refusal(stage: &Stage, command: &[&str], directory: &str) -> (DriverError, String) {
    let mut spec = spec(stage.dir.path(), "exit 0");
    fs::write(spec.directory.join("data"), "no program").expect("a file");
    spec.command = command.iter().map(|&word| word.to_owned()).collect();
    spec.directory = stage.path(directory);
    let error = stage.driver.start(&spec).expect_err("refused");
    let text = error.to_string();
    (error, text)
}

#[tokio::test]
async fn a_missing_version_is_named_with_its_path_and_what_to_do() {
    let stage = Stage::new().await;
    let (error, text) = refusal(&stage, &["./run"], "builds/2.0.0");
    assert!(matches!(error, DriverError::NoDirectory { .. }), "{text}");
    let path = stage.path("builds/2.0.0");
    assert!(text.contains(&path.display().to_string()) && text.contains("put the build there"), "{text}");
}

#[tokio::test]
async fn a_program_that_cannot_run_is_named_with_its_path_and_what_to_do() {
    let stage = Stage::new().await;
    let (error, text) = refusal(&stage, &["./bin/billing"], "builds/1.0.0");
    assert!(matches!(error, DriverError::NoProgram { .. }), "{text}");
    assert!(text.contains("builds/1.0.0/./bin/billing") && text.contains("complete the build"), "{text}");

    let (error, text) = refusal(&stage, &["./data"], "builds/1.0.0");
    assert!(matches!(error, DriverError::NotExecutable { .. }), "{text}");
    assert!(text.contains("./data") && text.contains("chmod +x"), "{text}");

    let (error, text) = refusal(&stage, &["no-such-program"], "builds/1.0.0");
    assert!(matches!(error, DriverError::NotInPath { .. }), "{text}");
    assert!(text.contains("PATH") && text.contains("{builds}/{version}/no-such-program"), "{text}");

    for empty in [&[][..], &[""]] {
        let (error, text) = refusal(&stage, empty, "builds/1.0.0");
        assert!(matches!(error, DriverError::NoCommand { .. }), "{text}");
    }
}

#[tokio::test]
async fn a_script_without_its_interpreter_is_an_error_of_the_start_and_not_an_exit() {
    let stage = Stage::new().await;
    let spec = spec(stage.dir.path(), "");
    let program = spec.directory.join(&spec.command[0]);
    fs::write(&program, "#!/no/such/interpreter\n").expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    let error = stage.driver.start(&spec).expect_err("refused");
    assert!(matches!(error, DriverError::Spawn { .. }), "{error}");
    assert!(matches!(stage.driver.kill(&spec.instance).await, Err(DriverError::NotWatched { .. })));
}

#[tokio::test]
async fn an_output_file_that_cannot_be_written_is_named() {
    let stage = Stage::new().await;
    let mut spec = spec(stage.dir.path(), "exit 0");
    spec.output = spec.directory.join(&spec.command[0]).join("a.log");
    let error = stage.driver.start(&spec).expect_err("refused");
    assert!(matches!(error, DriverError::Output { .. }), "{error}");
    assert!(error.to_string().contains("/a.log"), "{error}");
}

//! The writers of a device: one process after the other, each by another means, while the device syncs, or is cut off.

pub mod child;

use crate::deeds::{Deed, Terms};
use crate::hands::LineHand;
use crate::process::Process;
use crate::server::look_into;
use crate::shop::{Dice, gbsync};
use crate::world::{Device, Shared};
use child::Burst;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ChildStdin, Command, ExitStatus};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Writes until the storm is over.
pub fn run(shared: &Shared, device: &Arc<Device>, mut dice: Dice) {
    let mut writing = Writing { shared, device, next: 0, lines: Vec::new() };
    while !shared.is_over() {
        let ended = match dice.below(3) {
            0 => writing.apply(&mut dice),
            1 if shared.has_schema => writing.child("sql", &mut dice),
            _ => writing.child("library", &mut dice),
        };
        if let Some(why) = ended {
            shared.fail(&format!("a writer of {} failed: {why}", device.name));
        }
        thread::sleep(Duration::from_millis(dice.below(100)));
    }
}

struct Writing<'a> {
    shared: &'a Shared,
    device: &'a Arc<Device>,
    /// The number of the next operation.
    next: u64,
    /// Lines that `apply` has not printed: root and text.
    lines: Vec<(String, String)>,
}

impl Writing<'_> {
    fn count(&mut self, dice: &mut Dice) -> u64 {
        let count = 3 + dice.below(8);
        self.next += count;
        count
    }

    /// A burst by a process of [`child`]. Answers what went wrong, if it was not killed.
    fn child(&mut self, kind: &str, dice: &mut Dice) -> Option<String> {
        let count = self.count(dice);
        let file = self.device.file.to_str().unwrap();
        let (has_schema, first, seed) = (self.shared.has_schema, self.next - count, dice.next());
        let burst = Burst { kind, file, device: &self.device.name, has_schema, first, count, seed };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(burst.arguments());
        let mut process = self.start(command, kind);
        let output = BufReader::new(process.take_stdout());
        self.device.writer.lock().unwrap().replace(process);
        for root in output.split(b'\n').map_while(Result::ok) {
            self.device.ledger.acknowledge(std::str::from_utf8(&root).unwrap());
        }
        let status = self.end();
        (!status.success() && status.signal() != Some(9)).then(|| format!("{kind}: {status}"))
    }

    /// A burst by `gbsync apply`: first what an earlier one did not print, with the same ids.
    fn apply(&mut self, dice: &mut Dice) -> Option<String> {
        let count = self.count(dice);
        let receipts = child::receipts(&look_into(&self.device.file));
        let terms = Terms { device: &self.device.name, receipts: &receipts, reads: false, voids: false };
        for number in self.next - count..self.next {
            let deed = Deed::draw(dice, number, &terms);
            let mut hand = LineHand::default();
            deed.write(&mut hand, self.shared.has_schema).unwrap();
            let (kind, root) = (deed.group_type(), &deed.root);
            let line =
                json!({ "syncGroupId": format!("{kind}:{root}:given"), "type": kind, "root": root, "changes": hand.0 });
            self.lines.push((root.clone(), format!("{line}\n")));
        }
        let mut command = gbsync();
        command.arg("apply").arg(&self.device.file).args(["-", "--json"]);
        let mut process = self.start(command, "apply");
        let (input, output) = (process.take_stdin(), BufReader::new(process.take_stdout()));
        self.device.writer.lock().unwrap().replace(process);
        let texts: Vec<String> = self.lines.iter().map(|(_, text)| text.clone()).collect();
        let pauses: Vec<u64> = texts.iter().map(|_| 30 + dice.below(200)).collect();
        let feeder = thread::spawn(move || feed(input, &texts, &pauses));
        let mut applied = 0;
        for line in output.lines().map_while(Result::ok) {
            // The last line may be cut: what was not printed whole was not acknowledged.
            let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
            if let Some(number) = line["line"].as_u64() {
                assert_eq!(number, applied + 1, "lines are acknowledged in order");
                applied = number;
                self.device.ledger.acknowledge(&self.lines[applied as usize - 1].0);
            }
        }
        let status = self.end();
        feeder.join().unwrap();
        self.lines.drain(..applied as usize);
        if status.code() == Some(1) && !self.lines.is_empty() {
            // This line makes no sense any more, such as a note on a receipt that was voided meanwhile.
            self.lines.remove(0);
        }
        (!matches!(status.code(), Some(0 | 1)) && status.signal() != Some(9)).then(|| format!("apply: {status}"))
    }

    fn start(&self, command: Command, kind: &str) -> Process {
        Process::start(command, &self.shared.logs, &format!("{}-{kind}", self.device.name))
    }

    /// Waits for the end of the process, where it can be killed or go on meanwhile.
    fn end(&self) -> ExitStatus {
        loop {
            let mut writer = self.device.writer.lock().unwrap();
            if let Some(status) = writer.as_mut().expect("only its writer takes it out").ended() {
                *writer = None;
                return status;
            }
            drop(writer);
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn feed(mut input: ChildStdin, texts: &[String], pauses: &[u64]) {
    for (text, pause) in texts.iter().zip(pauses) {
        // The reader dies in the middle: that is the point.
        if input.write_all(text.as_bytes()).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(*pause));
    }
}

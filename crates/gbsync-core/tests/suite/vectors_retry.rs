//! `vectors/retry.json`.

use crate::vectors::{cases, name};
use gbsync_core::retry::{Outcome, Step, classify};
use gbsync_core::wire::{Problem, ProblemCode};
use serde_json::Value;

fn outcome(case: &Value) -> Outcome {
    let problem = |value: &Value| {
        let code = ProblemCode::from_wire(value["code"].as_str()?).unwrap();
        let mut problem = Problem::new(code, "what is wrong");
        problem.pointer = value["pointer"].as_str().map(str::to_owned);
        problem.reason = value["reason"].as_str().map(str::to_owned);
        Some(problem)
    };
    match case["outcome"].as_str().unwrap() {
        "lost" => Outcome::Lost,
        "answered" => Outcome::Answered,
        "not_an_answer" => Outcome::NotAnAnswer,
        _ => Outcome::Refused {
            status: u16::try_from(case["status"].as_u64().unwrap()).unwrap(),
            problem: problem(&case["problem"]),
        },
    }
}

#[test]
fn outcomes_lead_to_the_steps_of_the_vectors() {
    for case in cases("retry.json", 60) {
        let step = match (case["step"].as_str().unwrap(), case["group"].as_u64()) {
            ("take", None) => Step::Take,
            ("retry", None) => Step::Retry,
            ("send_less", None) => Step::SendLess,
            ("park_group", Some(index)) => Step::ParkGroup(usize::try_from(index).unwrap()),
            ("sign_in", None) => Step::SignIn,
            ("sign_in_as", Some(index)) => Step::SignInAs(usize::try_from(index).unwrap()),
            ("new_epoch", None) => Step::NewEpoch,
            ("resync", None) => Step::Resync,
            ("bug", None) => Step::Bug,
            other => panic!("{}: {other:?} is no step", name(&case)),
        };
        assert_eq!(classify(&outcome(&case)), step, "{}", name(&case));
    }
}

#[test]
fn every_code_of_a_problem_has_a_vector_under_its_own_status() {
    let cases = cases("retry.json", 60);
    for code in ProblemCode::ALL {
        let is_shown = |case: &Value| case["problem"]["code"] == code.as_str() && case["status"] == code.status();
        assert!(cases.iter().any(is_shown), "{}", code.as_str());
    }
}

use super::*;

const MS: Duration = Duration::from_millis(1);

fn bytes_of(step: Step<'_>) -> Vec<u8> {
    match step {
        Step::Write(bytes) => bytes.to_vec(),
        Step::Idle | Step::Wait(_) | Step::Finish | Step::Reset | Step::Over => Vec::new(),
    }
}

#[test]
fn bytes_wait_for_their_time_and_keep_their_order() {
    let start = Instant::now();
    let mut lane = Lane::default();
    lane.push(start, b"one".to_vec());
    lane.push(start + 3 * MS, b"two".to_vec());
    lane.finish(start + 4 * MS);
    assert_eq!(
        lane.step(start + 9 * MS, 10 * MS),
        Step::Wait(start + 10 * MS)
    );
    assert_eq!(bytes_of(lane.step(start + 10 * MS, 10 * MS)), b"one");
    lane.wrote(2);
    assert_eq!(
        bytes_of(lane.step(start + 10 * MS, 10 * MS)),
        b"e",
        "a short write goes on"
    );
    lane.wrote(1);
    assert_eq!(
        lane.step(start + 10 * MS, 10 * MS),
        Step::Wait(start + 13 * MS)
    );
    assert_eq!(
        bytes_of(lane.step(start + 10 * MS, 5 * MS)),
        b"two",
        "a shorter delay holds now"
    );
    lane.wrote(3);
    assert_eq!(
        lane.step(start + 13 * MS, 10 * MS),
        Step::Wait(start + 14 * MS)
    );
    assert_eq!(lane.step(start + 14 * MS, 10 * MS), Step::Finish);
    lane.finished();
    assert_eq!(lane.step(start + 14 * MS, 10 * MS), Step::Over);
}

#[test]
fn a_reset_arrives_in_time_even_before_bytes_that_nobody_takes() {
    let start = Instant::now();
    let mut lane = Lane::default();
    lane.push(start, b"never read".to_vec());
    lane.reset(start + MS);
    assert_eq!(bytes_of(lane.step(start + 10 * MS, 10 * MS)), b"never read");
    assert_eq!(lane.reset_due(10 * MS), Some(start + 11 * MS));
    assert_eq!(lane.step(start + 11 * MS, 10 * MS), Step::Reset);
}

#[test]
fn a_reset_after_fin_still_arrives() {
    let start = Instant::now();
    let mut lane = Lane::default();
    lane.finish(start);
    assert_eq!(lane.step(start + MS, MS), Step::Finish);
    lane.finished();
    lane.reset(start + 5 * MS);
    assert_eq!(lane.step(start + 5 * MS, MS), Step::Wait(start + 6 * MS));
    assert_eq!(lane.step(start + 6 * MS, MS), Step::Reset);
}

#[test]
fn a_full_lane_wants_no_more_until_it_drains() {
    let start = Instant::now();
    let mut lane = Lane::default();
    while lane.wants_more() {
        lane.push(start, vec![0; CHUNK]);
    }
    assert!(
        lane.held() <= QUEUE_BOUND + CHUNK + OVERHEAD,
        "{}",
        lane.held()
    );
    lane.wrote(CHUNK);
    lane.wrote(CHUNK);
    assert!(lane.wants_more());
    // Tiny chunks are charged for what they cost.
    let mut lane = Lane::default();
    let mut chunks = 0;
    while lane.wants_more() {
        lane.push(start, vec![0]);
        chunks += 1;
    }
    assert!(chunks <= QUEUE_BOUND / OVERHEAD, "{chunks}");
}

#[test]
fn a_discarded_lane_holds_nothing_and_is_over() {
    let start = Instant::now();
    let mut lane = Lane::default();
    lane.push(start, vec![0; CHUNK]);
    lane.discard(start);
    assert_eq!((lane.held(), lane.wants_more()), (0, false));
    assert_eq!(lane.step(start, MS), Step::Over);
}

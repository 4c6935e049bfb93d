//! §4: frames and header blocks.

use super::wire::Expect::{Answer, Connection, Ignored};
use super::wire::*;

/// A request's block, with these octets before it.
fn after(octets: &[u8]) -> Vec<u8> {
    let block = [octets, &with("GET", &[])].concat();
    frame(HEADERS, WHOLE, 1, block)
}

/// A request that goes on in frames of its own, with something between them.
fn split_by(between: Vec<u8>) -> Vec<u8> {
    let block = with("GET", &[]);
    let (one, two) = block.split_at(10);
    [
        frame(HEADERS, END_STREAM, 1, one),
        between,
        frame(CONTINUATION, END_HEADERS, 1, two),
    ]
    .concat()
}

cases! {
    s4_1_a_frame_of_an_unknown_type_is_ignored: [frame(0xBB, 0xFF, 0, *b"what?")] => Ignored;
    s4_1_a_frame_of_an_unknown_type_on_a_stream_is_ignored:
        [frame(0xBB, 0xFF, 1, *b"what?"), get(1)] => Answer(1, 200);
    s4_1_flags_without_a_meaning_are_ignored: [frame(PING, 0xFE, 0, [0; 8])] => Ignored;
    s4_1_the_reserved_bit_is_ignored:
        [frame(HEADERS, WHOLE, 1 | 1 << 31, with("GET", &[]))] => Answer(1, 200);
    s4_2_data_as_long_as_allowed: [post(1), data(1, END_STREAM, &[b'x'; 1 << 14])] => Answer(1, 200);
    s4_2_data_longer_than_allowed_is_a_frame_size_error:
        [post(1), data(1, END_STREAM, &[b'x'; (1 << 14) + 1])] => Connection(FRAME_SIZE_ERROR);
    s4_2_headers_longer_than_allowed_are_a_frame_size_error:
        [frame(HEADERS, WHOLE, 1, [0; (1 << 14) + 1])] => Connection(FRAME_SIZE_ERROR);
    s4_2_settings_longer_than_allowed_are_a_frame_size_error:
        [frame(SETTINGS, 0, 0, [0; 16_386])] => Connection(FRAME_SIZE_ERROR);
    s4_2_a_frame_of_an_unknown_type_longer_than_allowed_is_a_frame_size_error:
        [frame(0xBB, 0, 0, [0; (1 << 14) + 1])] => Connection(FRAME_SIZE_ERROR);
    s4_2_headers_too_short_for_their_flags_are_a_frame_size_error:
        [frame(HEADERS, WHOLE | WITH_PRIORITY, 1, [0; 4])] => Connection(FRAME_SIZE_ERROR);
    s4_2_data_too_short_for_its_flags_is_a_frame_size_error:
        [post(1), data(1, PADDED, &[])] => Connection(FRAME_SIZE_ERROR);

    s4_3_an_index_of_nothing_is_a_compression_error: [after(&[0x80])] => Connection(COMPRESSION_ERROR);
    s4_3_an_index_beyond_the_table_is_a_compression_error: [after(&[0xBE])] => Connection(COMPRESSION_ERROR);
    s4_3_a_name_beyond_the_table_is_a_compression_error:
        [after(&[0x7F, 0x00, 0x01, b'a'])] => Connection(COMPRESSION_ERROR);
    s4_3_a_number_without_an_end_is_a_compression_error:
        [after(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])] => Connection(COMPRESSION_ERROR);
    s4_3_a_table_larger_than_allowed_is_a_compression_error:
        [after(&[0x3F, 0xE2, 0x1F])] => Connection(COMPRESSION_ERROR);
    s4_3_a_change_of_the_table_behind_a_field_is_a_compression_error:
        [frame(HEADERS, WHOLE, 1, [&with("GET", &[])[..], &[0x20]].concat())]
        => Connection(COMPRESSION_ERROR);
    s4_3_huffmans_code_padded_with_zeros_is_a_compression_error:
        [after(&[0x10, 0x01, b'a', 0x81, 0x00])] => Connection(COMPRESSION_ERROR);
    s4_3_huffmans_code_padded_with_an_octet_is_a_compression_error:
        [after(&[0x10, 0x01, b'a', 0x82, 0x1F, 0xFF])] => Connection(COMPRESSION_ERROR);
    s4_3_huffmans_end_of_string_is_a_compression_error:
        [after(&[0x10, 0x01, b'a', 0x84, 0xFF, 0xFF, 0xFF, 0xFF])] => Connection(COMPRESSION_ERROR);
    s4_3_a_block_that_is_cut_off_is_a_compression_error:
        [frame(HEADERS, WHOLE, 1, [&with("GET", &[])[..], &[0x10, 0x05, b'a']].concat())]
        => Connection(COMPRESSION_ERROR);
    s4_3_a_change_of_the_table_before_the_fields: [after(&[0x20])] => Answer(1, 200);
    s4_3_a_block_in_many_pieces: [{
        let mut all = frame(HEADERS, END_STREAM, 1, []);
        for octet in with("GET", &[]).chunks(40) {
            all.extend(frame(CONTINUATION, 0, 1, octet));
        }
        all.extend(frame(CONTINUATION, END_HEADERS, 1, []));
        all
    }] => Answer(1, 200);
    s4_3_data_within_a_block_is_a_protocol_error:
        [split_by(data(1, 0, b"x"))] => Connection(PROTOCOL_ERROR);
    s4_3_headers_within_a_block_are_a_protocol_error:
        [split_by(get(3))] => Connection(PROTOCOL_ERROR);
    s4_3_headers_of_the_stream_within_a_block_are_a_protocol_error:
        [split_by(get(1))] => Connection(PROTOCOL_ERROR);
    s4_3_a_ping_within_a_block_is_a_protocol_error:
        [split_by(frame(PING, 0, 0, [0; 8]))] => Connection(PROTOCOL_ERROR);
    s4_3_settings_within_a_block_are_a_protocol_error:
        [split_by(settings(&[]))] => Connection(PROTOCOL_ERROR);
    s4_3_a_priority_within_a_block_is_a_protocol_error:
        [split_by(frame(PRIORITY, 0, 1, [0, 0, 0, 0, 1]))] => Connection(PROTOCOL_ERROR);
    s4_3_a_reset_within_a_block_is_a_protocol_error:
        [split_by(reset(1, CANCEL))] => Connection(PROTOCOL_ERROR);
    s4_3_a_window_update_within_a_block_is_a_protocol_error:
        [split_by(window_update(0, 1))] => Connection(PROTOCOL_ERROR);
    s4_3_a_goaway_within_a_block_is_a_protocol_error:
        [split_by(goaway(0, NO_ERROR))] => Connection(PROTOCOL_ERROR);
    s5_5_a_frame_of_an_unknown_type_within_a_block_is_a_protocol_error:
        [split_by(frame(0xBB, 0, 0, []))] => Connection(PROTOCOL_ERROR);
    s5_5_an_unknown_setting_is_ignored: [settings(&[(0xBBBB, 7)])] => Ignored;
}

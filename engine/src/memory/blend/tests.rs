use super::*;
use crate::rng::Rng;
use crate::text::tokenizer::{END, FIRST_BYTE};

fn order(len: u32, next: &[(TokenId, u32)]) -> Order {
    Order { len, total: next.iter().map(|(_, count)| count).sum(), next: next.to_vec() }
}

fn lookup(file: Vec<Order>, workspace: Vec<Order>) -> Lookup {
    let mut lookup = Lookup::default();
    lookup.tiers[Tier::File as usize] = file;
    lookup.tiers[Tier::Workspace as usize] = workspace;
    lookup
}

fn blends() -> Vec<Blend> {
    let mut rng = Rng::new(3);
    let random: Vec<f32> = (0..N_WEIGHTS).map(|_| 2.0 * rng.normal()).collect();
    vec![Blend::default(), Blend::rough(), Blend::from_weights(&random).expect("as many as are needed")]
}

const A: TokenId = FIRST_BYTE + 1;
const B: TokenId = FIRST_BYTE + 2;
const C: TokenId = FIRST_BYTE + 3;

#[test]
fn probabilities_sum_to_one_and_none_is_nothing() {
    let known = lookup(vec![order(9, &[(A, 3), (B, 1)]), order(2, &[(A, 3), (C, 9)])], vec![order(5, &[(B, 1)])]);
    for blend in blends() {
        for has_model in [false, true] {
            let mut p: Vec<f32> = (0..300).map(|i| i as f32 + 1.0).collect();
            let total: f32 = p.iter().sum();
            p.iter_mut().for_each(|p| *p /= total);
            let before = p.clone();
            let mut mixture = Mixture::default();
            blend.mix(&mut p, has_model, &known, &mut mixture);
            assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{}", p.iter().sum::<f32>());
            assert!(p.iter().all(|p| *p > 0.0));
            for token in [A, B, C] {
                let at = usize::from(token);
                assert!(mixture.memory(token) > 0.0 && mixture.memory(token) <= p[at]);
            }
            assert_eq!(mixture.memory(A + 9), 0.0);
            assert!(p[0] < before[0]);
            // The same buffers again give the same.
            let mut again = before.clone();
            blend.mix(&mut again, has_model, &known, &mut mixture);
            assert_eq!(again, p);
        }
    }
}

#[test]
fn one_token_alone_has_the_probability_that_it_has_among_all() {
    let known = lookup(vec![order(9, &[(A, 3), (B, 1)]), order(2, &[(A, 3), (C, 9)])], vec![order(5, &[(B, 1)])]);
    let nothing = Lookup::default();
    for (blend, lookup) in blends().iter().flat_map(|blend| [(blend, &known), (blend, &nothing)]) {
        let mut p = vec![0.004; 250];
        blend.mix(&mut p, false, lookup, &mut Mixture::default());
        for token in [A, B, C, C + 1, FIRST_BYTE] {
            assert_eq!(blend.p_memory_only(token, 0.004, 250, lookup), p[usize::from(token)]);
        }
        assert_eq!(blend.p_memory_only(C, 0.0, usize::from(C), lookup), 0.0, "no token of the vocabulary");
    }
}

#[test]
fn nothing_known_changes_nothing() {
    let mut p = vec![0.25; 4];
    let mut mixture = Mixture::default();
    Blend::default().mix(&mut p, true, &Lookup::default(), &mut mixture);
    assert_eq!(p, [0.25; 4]);
}

#[test]
fn tokens_that_the_vocabulary_lacks_are_left_out() {
    let mut p = vec![1.0 / 300.0; 300];
    let mut mixture = Mixture::default();
    let known = lookup(vec![order(4, &[(9000, 5), (END, 2), (A, 1)])], vec![order(3, &[(9000, 1)])]);
    Blend::default().mix(&mut p, true, &known, &mut mixture);
    assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    assert!(p[usize::from(A)] > 1.0 / 300.0 && p[usize::from(END)] < 1.0 / 300.0);
}

#[test]
fn orders_come_from_the_weakest_to_the_strongest() {
    let known = lookup(vec![order(9, &[(A, 1)]), order(2, &[(A, 2)])], vec![order(9, &[(B, 1)]), order(3, &[(B, 2)])]);
    let mut seen = Vec::new();
    each_order(&known, |tier, order| seen.push((tier, order.len)));
    assert_eq!(seen, [(Tier::File, 2), (Tier::Workspace, 3), (Tier::Workspace, 9), (Tier::File, 9)]);
}

#[test]
fn weights_read_back_and_others_are_refused() {
    for blend in blends() {
        assert_eq!(Blend::from_weights(&blend.weights()), Ok(blend));
    }
    let mut weights = Blend::rough().weights();
    weights[7] = f32::NAN;
    assert_eq!(Blend::from_weights(&weights), Err(BlendError::OutOfRange { index: 7 }));
    weights.pop();
    assert_eq!(Blend::from_weights(&weights), Err(BlendError::Length { n_weights: N_WEIGHTS - 1 }));
}

#[test]
fn the_logarithm_is_within_a_tenth() {
    for x in [1e-20f32, 0.003, 0.3, 0.5, 1.0, 1.4, 255.0] {
        assert!((log2(x) - x.log2()).abs() < 0.09, "{x}");
    }
    assert!(log2(0.0).is_finite());
}

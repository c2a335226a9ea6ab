//! One name, one thing: no two types of src/ have one name, so that who looks for a type finds it.

use super::tree::Tree;

#[test]
fn no_type_has_the_name_of_another() {
    let tree = Tree::of_the_program();
    let types = tree.types();
    assert!(types.len() > 100, "the types are not found");
    let twice: Vec<_> = types.iter().filter(|(_, files)| files.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}

"""What a reward program may use: an allow-list of syntax, builtins, torch functions, methods and constants.

A deny-list cannot hold (`torch.os`, `x.numpy().tofile(...)`, 162 in-place methods), so whatever is not named
here does not exist for a program. Left out on purpose: everything random, everything in place, everything
that leaves the device (`item`, `numpy`, `cpu`), everything whose output shape depends on values (`nonzero`,
`unique`), and everything that turns a NaN into a number or hides it (`nan_to_num`, `nanmean`, `fmax`,
`isnan`).
"""

import ast


def names(text: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(text.split())


TORCH_FUNCTIONS = names(
    """
        abs absolute acos acosh add addcdiv addcmul arccos arcsin arctan arctan2 asin asinh atan atan2
    atanh ceil clamp
        clamp_max clamp_min clip copysign cos cosh deg2rad div divide erf erfc exp exp2 expm1 floor
    floor_divide fmod frac
        heaviside hypot ldexp lerp log log10 log1p log2 logaddexp logit maximum minimum mul multiply neg
    negative pow
        rad2deg reciprocal remainder round rsqrt sgn sigmoid sign sin sinc sinh sqrt square sub subtract
    tan tanh
        true_divide trunc xlogy relu softmax log_softmax
        eq ne lt le gt ge greater greater_equal less less_equal not_equal isclose logical_and logical_not
    logical_or
        logical_xor bitwise_and bitwise_not bitwise_or bitwise_xor where
        sum mean prod amax amin max min argmax argmin std var median norm all any logsumexp cumsum cumprod
    count_nonzero
        topk sort argsort diff dist
        matmul mm bmm einsum inner cross tensordot cosine_similarity
        cat concat stack hstack vstack column_stack unsqueeze squeeze reshape flatten transpose swapaxes
    permute movedim
        broadcast_to broadcast_tensors tile roll flip narrow select index_select gather take_along_dim
    chunk split unbind
        zeros ones full zeros_like ones_like full_like tensor as_tensor arange linspace eye
    """
)
TORCH_CONSTANTS = names("pi e float32 float int64 long int32 int bool")
LINALG_FUNCTIONS = names("norm vector_norm cross vecdot")
FUNCTIONAL = names(
    """
        relu relu6 elu selu celu gelu silu mish softplus softsign hardtanh hardsigmoid hardswish
    leaky_relu logsigmoid sigmoid
        tanh softmax log_softmax softmin normalize cosine_similarity pairwise_distance smooth_l1_loss
    huber_loss mse_loss
        l1_loss
    """
)
MATH = names(
    """
        pi e tau exp expm1 log log10 log1p log2 sqrt pow sin cos tan asin acos atan atan2 sinh cosh tanh
    asinh acosh atanh fabs
        floor ceil hypot radians degrees copysign fmod erf
    """
)
MODULES: dict[str, frozenset[str]] = {
    "torch": TORCH_FUNCTIONS | TORCH_CONSTANTS,
    "torch.nn": frozenset(),
    "torch.nn.functional": FUNCTIONAL,
    "torch.linalg": LINALG_FUNCTIONS,
    "math": MATH,
}
"""Module path -> members that exist there for a program."""

TENSOR_METHODS = names(
    """
        abs absolute acos acosh add addcdiv addcmul arccos arcsin arctan arctan2 asin asinh atan atan2
    atanh ceil clamp
        clamp_max clamp_min clip copysign cos cosh deg2rad div divide erf erfc exp exp2 expm1 floor
    floor_divide fmod frac
        heaviside hypot lerp log log10 log1p log2 logaddexp logit maximum minimum mul multiply neg
    negative pow rad2deg
        reciprocal remainder round rsqrt sgn sigmoid sign sin sinc sinh sqrt square sub subtract tan tanh
    true_divide
        trunc xlogy relu softmax log_softmax
        eq ne lt le gt ge greater greater_equal less less_equal not_equal isclose logical_and logical_not
    logical_or
        logical_xor bitwise_and bitwise_not bitwise_or bitwise_xor where
        sum mean prod amax amin max min argmax argmin std var median norm all any logsumexp cumsum cumprod
    count_nonzero
        topk sort argsort diff dist
        matmul mm bmm inner cross
        unsqueeze squeeze reshape flatten unflatten transpose swapaxes permute movedim broadcast_to tile
    repeat roll flip
        narrow select index_select gather take_along_dim chunk split unbind view view_as reshape_as expand
    expand_as t
        masked_fill clone detach contiguous float bool int long to type_as new_zeros new_ones new_full
    new_tensor
        size dim ndimension numel
    """
)
VIEWS = names(
    """
        unsqueeze squeeze reshape flatten unflatten transpose swapaxes permute movedim broadcast_to narrow select
    chunk split unbind view view_as reshape_as expand expand_as t detach contiguous float bool int long to type_as
    as_tensor broadcast_tensors
    """
)
"""Functions and methods whose result may be the memory of what they were given."""
CONTAINER_METHODS = names("append extend items keys values update get")
MUTATING_METHODS = names("append extend update")
ATTRIBUTES = names("shape ndim dtype device T mT values indices")
"""Attributes that may be read without calling them; `values` and `indices` belong to the result of max, sort
and topk."""
BUILTINS = names("abs bool dict enumerate float int len list max min range reversed round sum tuple zip")
KEYWORDS = names(
    """
        dim dims dim0 dim1 keepdim dtype device input other min max p ord eps alpha beta value unbiased
    correction exponent
        descending largest sorted stable k index start end step steps size fill_value negative_slope
    threshold delta reduction
        approximate rounding_mode tensors x x1 x2 y mean std weight shifts repeats sizes length chunks
    split_size_or_sections
        tensor1 tensor2 condition rtol atol equal_nan prepend append n base values shape min_val max_val
    lambd
        strict data key default source destination mask sections
    """
)
"""Keyword arguments that torch functions and tensor methods may be given; `out` and `inplace` are absent on
purpose."""
DECORATORS = names("torch.jit.script torch.jit.export torch.no_grad torch.inference_mode torch.compile")
"""Decorators that change no value; they are accepted and taken off before the program runs."""
CONTEXTS = names("torch.no_grad torch.inference_mode torch.enable_grad")
PRELUDE = {"torch": "torch", "math": "math", "F": "torch.nn.functional"}
"""Names bound for every program, so that a forgotten import costs no repair."""

NODES = names(
    """
        Module FunctionDef arguments arg Return Assign AnnAssign AugAssign Expr If For With withitem Pass
    Break Continue Import
        ImportFrom alias Constant Name Attribute Subscript Slice Tuple List Dict Call keyword BinOp
    UnaryOp BoolOp Compare
        IfExp Lambda ListComp DictComp GeneratorExp comprehension JoinedStr FormattedValue Load Store
        Add Sub Mult Div FloorDiv Mod Pow MatMult BitAnd BitOr BitXor UAdd USub Not Invert And Or
        Eq NotEq Lt LtE Gt GtE Is IsNot In NotIn
    """
)
"""Syntax nodes of the abstract grammar that a program may contain."""

NODE_HINTS = {
    "While": "write the computation without a loop; tensors already hold all worlds",
    "AsyncFunctionDef": "write a plain function",
    "ClassDef": "write plain functions",
    "Try": "remove the try; make the computation valid for every input, for example with torch.clamp",
    "TryStar": "remove the try; make the computation valid for every input",
    "Raise": "remove it; a reward may not raise",
    "Assert": "remove it; shapes are checked in the trial",
    "Global": "pass values as arguments and return them",
    "Nonlocal": "pass values as arguments and return them",
    "Delete": "remove it",
    "Yield": "return the values",
    "YieldFrom": "return the values",
    "Await": "write a plain function",
    "AsyncFor": "write a plain function",
    "AsyncWith": "write a plain function",
    "NamedExpr": "assign on a line of its own",
    "Match": "use torch.where for tensors",
    "Starred": "name the elements one by one",
    "Set": "use a tuple",
    "SetComp": "use a list",
    "LShift": "multiply by a constant",
    "RShift": "divide by a constant",
}
NODE_WORDS = {
    "ClassDef": "class",
    "Try": "try/except",
    "TryStar": "try/except*",
    "NamedExpr": ":=",
    "AsyncFunctionDef": "async def",
    "Starred": "* unpacking",
    "Set": "set",
    "SetComp": "set comprehension",
    "LShift": "<<",
    "RShift": ">>",
    "Delete": "del",
}

_NAN = "a NaN must stay visible; keep the value finite instead, for example with torch.clamp(x, min=1e-6)"
_SYNC = "stay on tensors; every value is one number per world"
_RANDOM = "a reward must be deterministic; remove the random term"
_SHAPE = "its output shape depends on values; use torch.where(condition, a, b)"
NAME_HINTS = {
    **dict.fromkeys(names("nan_to_num nansum nanmean nanmedian fmax fmin isnan isinf isfinite nan inf"), _NAN),
    **dict.fromkeys(names("item numpy tolist cpu cuda data"), _SYNC),
    **dict.fromkeys(names("rand randn randint rand_like randn_like normal bernoulli randperm dropout"), _RANDOM),
    **dict.fromkeys(names("nonzero unique masked_select argwhere bincount one_hot"), _SHAPE),
    "empty": "use torch.zeros",
    "empty_like": "use torch.zeros_like",
    "Tensor": "it may stand in annotations only; make a tensor with torch.tensor or torch.zeros_like",
    "FloatTensor": "use torch.tensor(...)",
    "float64": "signals and rewards are float32",
    "double": "signals and rewards are float32; use .float()",
    "type": "use .float(), .bool() or .to(dtype)",
    "print": "remove it; return what you want to see as a component",
    "pow": "use the ** operator or torch.pow",
    "isinstance": "every argument is a tensor; remove the test",
    **dict.fromkeys(names("diag diagonal diag_embed trace"), "multiply by the vector, or take columns: x[:, 0]"),
    **dict.fromkeys(names("triu tril dot"), "multiply and sum: (x * weights).sum(dim=-1)"),
    **dict.fromkeys(names("quantile nanquantile kthvalue"), "use torch.median, torch.topk or torch.sort with dim=-1"),
    **dict.fromkeys(names("kl_div binary_cross_entropy binary_cross_entropy_with_logits"), "write the formula out"),
    **dict.fromkeys(names("layer_norm batch_norm group_norm"), "write it out: (x - x.mean(dim=-1, keepdim=True)) * k"),
    **dict.fromkeys(names("softshrink hardshrink tanhshrink threshold"), "use torch.where, or x - torch.tanh(x)"),
    "float_power": "use the ** operator",
    "special": "use torch.sigmoid, torch.expm1, torch.erf, ... directly",
    "np": "use torch; numpy is not available",
    "self": "the simulator is not visible; take the signals you need as arguments",
    "env": "the simulator is not visible; take the signals you need as arguments",
}
"""Names often written by mistake -> what to do instead."""


def import_bindings(node: ast.Import | ast.ImportFrom) -> tuple[dict[str, str | None], list[str]]:
    """What an import statement binds, and the dotted names that it may not import.

    A binding is name -> dotted path inside `MODULES`, or None for a name that is usable in annotations only.
    """
    bindings: dict[str, str | None] = {}
    refused: list[str] = []
    for item in node.names:
        if isinstance(node, ast.Import):
            path, name = item.name, item.asname or item.name.split(".")[0]
            if path in MODULES:
                bindings[name] = path if item.asname else path.split(".")[0]
            elif path == "typing":
                bindings[name] = None
            else:
                refused.append(path)
            continue
        module, name = ("." * node.level) + (node.module or ""), item.asname or item.name
        path = f"{module}.{item.name}"
        if module == "typing" or path in ("torch.Tensor", "__future__.annotations"):
            bindings[name] = None
        elif path in MODULES or item.name in MODULES.get(module, ()):
            bindings[name] = path
        else:
            refused.append(path)
    return bindings, refused


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a chain of attributes on a plain name, or "" for any other expression."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""

"""From events to splits: what is cleaned away, how users are cut, who is tested on."""

"""Boilerplate: texts that speak of the page, the file or the shop, and not of what a picture shows.

Two short lists of our own, by what web pages and their programs write into alt texts. A phrase of the first list is
boilerplate where nothing else is said: the whole text consists of such phrases, parted by anything but letters. "Photo
of the day" is, "photo of the day's first light" is not. A notice of the second list makes the text boilerplate wherever
it stands as written, for it never stands in a description. Case is ignored.

A change of the lists or of the rule changes results: raise the version of the operator `text`.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

PHRASES = (
    # names of the thing itself
    "image|images|img|photo|photos|photograph|foto|pic|pics|picture|pictures|thumbnail|thumb|thumbs|icon|icons|logo|logos"
    "|banner|avatar|gallery|slide|slideshow|screenshot|video|figure|fig|illustration|graphic|cover|poster|wallpaper"
    "|main image|featured image|hero image|header image|background image|profile picture|profile photo|profile image"
    "|product image|product photo|cover image|cover photo|site logo|company logo|brand logo|website logo|our logo"
    "|image for|image of|images of|photo of|photos of|picture of|pictures of|thumbnail for|thumbnail of|logo of|view of"
    "|photo gallery|image gallery|picture gallery|image alt|alt text|alt tag|alternative text|image description"
    "|image title|image caption|image preview|preview|preview image|stock image|stock photo|stock photos"
    # placeholders
    "|untitled|no title|no name|unnamed|unknown|default|default image|placeholder|placeholder image|image placeholder"
    "|no image|no photo|no picture|no image available|no photo available|image not available|image not found"
    "|image unavailable|image coming soon|photo coming soon|picture coming soon|coming soon|not available"
    "|loading|loading image|image loading|please wait|broken image|missing image|spacer|pixel|blank|transparent|clear"
    "|ohne titel|kein bild|sin titulo|sin título|sans titre|senza titolo|sem título|без названия|zonder titel|bez nazwy"
    # what to do with it
    "|click|click here|click me|click image|click on image|click the image|click for more|click to enlarge"
    "|click image to enlarge|click on image to enlarge|click on the image to enlarge|click photo to enlarge"
    "|click picture to enlarge|click for larger image|click for larger view|click for a larger view|click for full size"
    "|click to see larger image|click to view larger image|click to view larger|click to view|click to view full size"
    "|click to zoom|tap to zoom|hover to zoom|roll over image to zoom in|roll over to zoom|click to expand|enlarge"
    "|enlarge image|enlarge photo|view larger|view larger image|view full size|larger image|larger view|full size"
    "|zoom|zoom in|zoom image|open image|open in new window|open image in new tab|load image into gallery viewer"
    "|view image|view photo|view gallery|view more|view all|see more|see all|show more|read more|learn more|more info"
    "|more|next|previous|prev|back|home|menu|search|close|play|play video|watch video|download|download image"
    "|download now|share|share this|share on facebook|share on twitter|pin it|pin on pinterest|follow us|like us"
    "|subscribe|sign up|log in|login|register|add to cart|add to basket|add to wishlist|buy now|shop now|order now"
    "|sale|quick view"
    "|haga clic para ampliar|clic para ampliar|cliquez pour agrandir|agrandir|zum vergrößern klicken|bild vergrößern"
    "|clicca per ingrandire|clique para ampliar|klik om te vergroten|нажмите чтобы увеличить"
    # regular columns of pages
    "|photo of the day|image of the day|picture of the day|pic of the day|photo of the week|image of the week"
    "|featured|advertisement|ad|ads|sponsored|sponsor|related|related posts|image may contain|image source|photo credit"
    "|image credit|photo by|image by|courtesy of|source|credit|copyright|all rights reserved|getty images|shutterstock"
    "|istock|istockphoto|adobe stock|alamy|alamy stock photo|dreamstime|depositphotos|bigstock|fotolia"
    "|royalty free|royalty free image|royalty free images|royalty free stock image|royalty free stock photo"
    "|royalty free stock photos|free stock photo|free stock photos"
)  # fmt: skip

NOTICES = (
    "we use cookies|uses cookies to|accept cookies|accept all cookies|cookie consent|cookie policy|cookie settings"
    "|manage cookies|enable javascript|javascript is disabled|javascript is required|requires javascript"
    "|your browser does not support|browser is not supported|page not found|access denied|403 forbidden|are you a robot"
    "|subject to copyright|this image has been resized|this image has been removed|photo is no longer available"
    "|image is no longer available|bandwidth exceeded|hotlinking|lorem ipsum|no automatic alt text available"
    "|image may contain one or more|attachment has been removed"
)  # fmt: skip

_BREAKS = r"[^\p{L}\p{M}]+"
"""What parts words: all but letters and their marks."""
_FIRST_WORDS = "|".join(sorted({phrase.split(" ")[0] for phrase in PHRASES.split("|")}))
_BEGINS_LIKE_ONE = rf"(?i)^[^\p{{L}}\p{{M}}]*(?:{_FIRST_WORDS})(?:[^\p{{L}}\p{{M}}]|$)"
_CONSISTS_OF_PHRASES = rf"(?i)^(?:(?:{PHRASES}) )+$"
"""Of words, each followed by one space."""
_HOLDS_A_NOTICE = rf"(?i)\b(?:{NOTICES})\b"


def is_boilerplate(texts: pa.Array) -> pa.Array:
    """Whether each text is boilerplate (bool); null for null.

    Args:
        texts: strings, white space collapsed.
    """
    begins = pc.match_substring_regex(texts, _BEGINS_LIKE_ONE)
    words = pc.replace_substring_regex(texts.filter(begins), _BREAKS, " ")
    words = pc.binary_join_element_wise(pc.utf8_trim(words, characters=" "), "", " ")
    consists = pc.replace_with_mask(begins, begins, pc.match_substring_regex(words, _CONSISTS_OF_PHRASES))
    return pc.or_(consists, pc.match_substring_regex(texts, _HOLDS_A_NOTICE))
